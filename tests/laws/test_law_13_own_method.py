"""Law 13: a method defined in a test file, touching nothing else, works: a paper never needs the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from tests.laws.table import strips
from tests.tiny import KINDS, STEPS, Pipe, sample

import omnicache
from omnicache.granularity import MLP, Attention, Blocks, Denoiser
from omnicache.plan import Plan
from omnicache.policy import VALUES, Decision, Entry, History, Moment, Policy, Predictor, Tensors, Trigger, value
from omnicache.predictors import Hold, Residual
from omnicache.registry import METHODS, Range
from omnicache.runtime.step import Step


class Growing(Trigger):
    """Computes after one reuse, then after two, then after three: state of its own, as a paper may want."""

    longest: int = 3

    def init(self) -> Any:
        return 0, 1  # reused since the last computed step, how many may be

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        return (Decision.REUSE if state[0] < state[1] else Decision.COMPUTE), state

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        reused, allowed = state
        if decision is not Decision.COMPUTE:
            return reused + 1, allowed
        return 0, min(allowed + (moment.last is not None), self.longest)


class Decay(Predictor):
    """The mean of the newest two values, faded by a factor a step."""

    factor: float = 0.99

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        return (Entry(step, y), *history)[:2]

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        fade = self.factor ** (step.index - history[0].step.index)
        return tuple(torch.stack(v).mean(0) * fade for v in zip(*(e.tensors for e in history), strict=True))


@pytest.fixture(scope="module")
def _registered() -> Iterator[None]:
    """As an import of a user's file would do it, and undone for the other tests."""
    methods, values = dict(METHODS), dict(VALUES)
    grows, decays = value(Growing), value(Decay)

    @omnicache.method("growing", off={"longest": 0}, paper="made up", architectures="any")
    def growing(longest: Annotated[int, Range(0, 9)] = 3, factor: float = 0.99) -> Plan:
        """Lets reuse grow along the run."""
        where = Attention() | MLP() if longest != 9 else Denoiser()
        return Plan("growing", (Policy(grows(longest), where, decays(factor)),), {"longest": longest, "factor": factor})

    @omnicache.method("patchwork", off_reason="its blocks are always held at the second step")
    def patchwork() -> Plan:
        """Two clauses on different blocks."""
        one = Policy(grows(1), Blocks(0, 1), Residual(Hold()))
        return Plan("patchwork", (one, Policy(grows(2), Blocks(1), Residual(decays()))))

    yield
    METHODS.clear()
    METHODS.update(methods)
    VALUES.clear()
    VALUES.update(values)


def strip(longest: int, total: int) -> str:
    """One computed, one reused, one computed, two reused, ... by hand."""
    out, allowed = "#", 1
    while len(out) < total:
        out += "." * min(allowed, longest) + "#"
        allowed += 1
    return out[:total]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", ["batched", "calls"])
@pytest.mark.parametrize("solver", STEPS)
@pytest.mark.usefixtures("_registered")
def test_a_method_of_ones_own(kind: str, guidance: str, solver: str, tmp_path: Path) -> None:
    pipe = Pipe(kind, solver)
    plain = sample(pipe, guidance)
    with omnicache.cache(pipe, "growing", longest=2) as run:
        cached = sample(pipe, guidance)
        assert set(strips(run)) == {strip(2, pipe.total)}
        assert not torch.equal(cached, plain)
        assert (cached - plain).abs().max() < plain.abs().max()
        assert torch.equal(sample(pipe, guidance), cached)
    assert torch.equal(sample(pipe, guidance), plain)
    with omnicache.cache(pipe, "growing", longest=0):
        assert torch.equal(sample(pipe, guidance), plain)

    path = omnicache.methods()["growing"].plan(longest=2).save(tmp_path / "growing.plan.json")
    with omnicache.cache(pipe, path):
        assert torch.equal(sample(pipe, guidance), cached)


@pytest.mark.usefixtures("_registered")
def test_it_is_a_method_like_the_others() -> None:
    pipe = Pipe("dit")
    with pytest.raises(omnicache.OmniCacheError, match=r"longest.*outside \[0, 9\]"):
        omnicache.enable(pipe, "growing", longest=10)
    with pytest.raises(omnicache.OmniCacheError, match="Did you mean 'growing'"):
        omnicache.enable(pipe, "groing")
    with pytest.raises(omnicache.OmniCacheError, match="nothing to calibrate"):
        omnicache.calibrate(pipe, [1], "growing")
    assert omnicache.methods()["growing"].summary == "Lets reuse grow along the run."


@pytest.mark.usefixtures("_registered")
def test_several_clauses_and_the_whole_denoiser() -> None:
    pipe = Pipe("sd3")
    with omnicache.cache(pipe, "patchwork") as run:
        sample(pipe, "calls")
        one, two = strip(1, pipe.total), strip(2, pipe.total)
        marks = {("#", "#"): "#", (".", "."): "."}
        assert set(strips(run)) == {"".join(marks.get(pair, "o") for pair in zip(one, two, strict=True))}
    with omnicache.cache(pipe, "growing", longest=9) as run:
        sample(pipe)
        assert strips(run) == [strip(9, pipe.total)]


@pytest.mark.usefixtures("_registered")
def test_a_file_that_names_it_is_refused_where_it_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = omnicache.methods()["growing"].plan().save(tmp_path / "growing.plan.json")
    monkeypatch.delitem(VALUES, "Growing")
    with pytest.raises(omnicache.OmniCacheError, match=r"'Growing'.*Import the module that defines it"):
        Plan.load(path)
