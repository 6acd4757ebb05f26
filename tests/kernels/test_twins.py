"""The Triton twins: against the reference in the interpreter and on a GPU, compiled without one, and when they are taken."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import omnicache  # noqa: F401
from omnicache.kernels import dispatch, fill_rows, most_alike, reference, weighted_sum

HERE = Path(__file__).parent
TRITON = version("triton") if find_spec("triton") is not None else ""
triton = pytest.mark.skipif(not TRITON, reason="triton is not installed: pip install 'omnicache[interpreter]'")
interpreter = pytest.mark.skipif(TRITON < "3.7", reason="Triton's interpreter before 3.7 knows no NumPy from 2.4 on")


def alone(name: str, **environment: str) -> None:
    """Runs a file's tests in a process of its own: whether Triton interprets is settled when it is imported."""
    kept = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "OMNICACHE_KERNELS") and "PYTEST" not in k}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "--tb=short", str(HERE / name)]
    done = subprocess.run(command, cwd=HERE.parents[1], env={**kept, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@triton
@interpreter
def test_in_the_interpreter() -> None:
    alone("twins.py", TRITON_INTERPRET="1", OMNICACHE_KERNELS="triton")


@triton
def test_compiled_for_gpus() -> None:
    alone("compiled.py")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@triton
def test_on_a_gpu() -> None:
    alone("twins.py")


# --- when they are taken ---------------------------------------------------------------------------------------------------


@pytest.fixture
def twin(monkeypatch: Any) -> dict[str, Any]:
    """A twin of every kernel that works on the CPU: what it makes is up to the test, and calls are counted."""
    told: dict[str, Any] = {"calls": 0, "make": lambda *given: "made by the twin"}

    def called(*given: Any) -> Any:
        told["calls"] += 1
        return told["make"](*given)

    monkeypatch.setattr(dispatch, "FORCED", True)
    monkeypatch.setattr(dispatch, "without", set())
    monkeypatch.setattr(dispatch, "_twin", lambda name: called)
    return told


PAIR = [torch.ones(3), torch.full((3,), 2.0)]
SUM = torch.full((3,), 4.0)


def test_taken_where_it_can_be(twin: Any) -> None:
    assert weighted_sum(PAIR, [2.0, 1.0]) == "made by the twin"


def test_what_it_does_not_take_the_reference_does(twin: Any) -> None:
    twin["make"] = lambda *given: None
    assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
    assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
    assert twin["calls"] == 2


def test_not_taken_on_the_cpu() -> None:
    assert not dispatch.FORCED
    assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)


def test_a_twin_that_fails_is_given_up_with_one_warning(twin: Any) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("no assembler here")

    twin["make"] = fails
    with pytest.warns(RuntimeWarning, match="weighted_sum does not work here .RuntimeError: no assembler here"):
        assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
    assert twin["calls"] == 1
    twin["make"] = lambda *given: "made by the twin"
    assert most_alike(torch.ones(1, 1, 1), torch.ones(1, 1, 1)) == "made by the twin"


def test_without_triton_nothing_is_said(twin: Any) -> None:
    def missing(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    twin["make"] = missing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
        assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
    assert twin["calls"] == 1


def test_a_lack_of_memory_is_told(twin: Any) -> None:
    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    twin["make"] = full
    with pytest.raises(torch.cuda.OutOfMemoryError):
        weighted_sum(PAIR, [2.0, 1.0])
    assert "weighted_sum" not in dispatch.without


def test_gradients_go_through_the_reference(twin: Any) -> None:
    wanted = torch.ones(3, requires_grad=True)
    weighted_sum([wanted, wanted], [2.0, 1.0]).sum().backward()
    assert wanted.grad is not None and wanted.grad.tolist() == [3.0] * 3
    with torch.no_grad():
        assert weighted_sum([wanted, wanted], [2.0, 1.0]) == "made by the twin"


def test_what_counts_operations_sees_them(twin: Any) -> None:
    with FlopCounterMode(display=False) as counted:
        most_alike(torch.ones(1, 8, 4), torch.ones(1, 8, 4))
    assert counted.get_total_flops() == 2 * 8 * 8 * 4

    class Sees(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with Sees():
        assert torch.equal(weighted_sum(PAIR, [2.0, 1.0]), SUM)
    assert twin["calls"] == 0


def test_subclasses_of_tensors_are_left_alone(twin: Any) -> None:
    class Mine(torch.Tensor):
        pass

    assert torch.equal(weighted_sum([PAIR[0].as_subclass(Mine), PAIR[1]], [2.0, 1.0]), SUM)
    assert twin["calls"] == 0


def test_a_compiled_graph_stays_whole(twin: Any) -> None:
    @torch.compile(fullgraph=True, backend="eager")
    def summed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return weighted_sum([a, b], [2.0, 1.0])

    @torch.compile(fullgraph=True, backend="eager")
    def filled(fresh: torch.Tensor, inverse: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return fill_rows(fresh, inverse, kept)

    assert torch.equal(summed(*PAIR), SUM)
    kept, inverse = torch.zeros(3, 1), torch.tensor([-1, 0, -1])
    assert filled(torch.ones(1, 1), inverse, kept).flatten().tolist() == kept.flatten().tolist() == [0.0, 1.0, 0.0]
    assert twin["calls"] == 0


@pytest.mark.parametrize("asked", ["reference", ""])
def test_the_reference_can_be_asked_for(asked: str) -> None:
    said = "from omnicache.kernels import dispatch; print(sorted(dispatch.without) == sorted(dispatch.HOMES), dispatch.FORCED)"
    environment = {**os.environ, "OMNICACHE_KERNELS": asked}
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(asked == "reference"), "False"]


def test_every_twin_has_its_reference() -> None:
    assert all(callable(getattr(reference, name)) for name in dispatch.HOMES)
    assert all((Path(dispatch.__file__).parent / f"{home}.py").exists() for home in dispatch.HOMES.values())
