"""What each of two processes does: every case, once on whole sequences by itself, and once on its part of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from torch import Tensor

import omnicache
from omnicache.granularity import Stack
from omnicache.policy import Policy, Signal, value
from omnicache.triggers import Accumulate

from .parts import Flux, Row, Wan

PATIENCE = timedelta(seconds=30)
"""After this a rank that waits for a message that nobody sends gives up, and with it the other one."""


@value
class Spread(Signal):
    """A signal of a user's own, who has not thought of ranks: it is told of one number only."""

    def probe(self, module: Any, bound: Any) -> Tensor | None:
        return bound["hidden_states"]

    def compare(self, now: Tensor, before: Tensor) -> Tensor:
        return (now.flatten(1).std(1) - before.flatten(1).std(1)).abs()


@dataclass(frozen=True)
class Case:
    """One method on one split, and what befalls it.

    Attributes:
        model: split by hand, or by diffusers' context parallelism where it is diffusers' own.
        together: whether the ranks know of each other: attention, output and OmniCache's ``group``.
        late: the model is split after the method was enabled.
        lost: by rank, steps at which it alone is given NaN.
        own: each part attends to itself, so that what befalls one rank is not seen by the other.
        shrinks: one token less at step 5, so that the shape changes on the first rank only.
        blind: under inference mode, where values are compared because writes are not counted.
        runs: how many.
    """

    method: Any
    options: dict[str, Any] = field(default_factory=dict)
    model: type[Any] = Row
    together: bool = True
    late: bool = False
    lost: dict[int, tuple[int, ...]] = field(default_factory=dict)
    own: bool = False
    shrinks: bool = False
    blind: bool = False
    runs: int = 1


MARKS = "##.##..#.#.#"
TRAJECTORY = {"schedule": MARKS, "gamma": tuple(0.6 if m == "." else None for m in MARKS)}
EXACT = {"decay": 1.0, "floor": 0.0, "order": 1}

ROW = {
    "teacache": Case("teacache", {"threshold": 0.3}),
    "speca": Case("speca", {"threshold": 0.0157, **EXACT}),
    "speca, redo": Case("speca", {"threshold": 0.024, "redo": True, **EXACT}),
    "fora": Case("fora"),
    "fora, stack": Case("fora", {"granularity": "stack"}, runs=2),
    "taylorseer": Case("taylorseer"),
    "omnicache-trajectory": Case("omnicache-trajectory", TRAJECTORY),
    "own signal": Case(Policy(Accumulate(Spread(), 18.0), Stack())),
}
FLUX = {
    "teacache": Case("teacache", {"threshold": 0.15}, model=Flux),
    "teacache, split late": Case("teacache", {"threshold": 0.15}, model=Flux, late=True),
    "speca, redo": Case("speca", {"threshold": 0.0035, "redo": True, **EXACT}, model=Flux),
    "fora, stack": Case("fora", {"granularity": "stack"}, model=Flux),
    "taylorseer": Case("taylorseer", model=Flux),
    "omnicache-trajectory": Case("omnicache-trajectory", {**TRAJECTORY, "cutoff": 0.25}, model=Flux),
}
WAN = {"teacache": Case("teacache", {"threshold": 0.2}, model=Wan), "fora": Case("fora", model=Wan)}
APART = {
    "teacache": Case("teacache", {"threshold": 0.3}, together=False),
    "speca": Case("speca", {"threshold": 0.0157, **EXACT}, together=False),
    "speca, redo": Case("speca", {"threshold": 0.024, "redo": True, **EXACT}, together=False),
}
LOST = {
    "teacache": Case("teacache", {"threshold": 0.7}, lost={1: (4,)}),
    "speca": Case("speca", {"threshold": 1.0, **EXACT}, lost={1: (5,)}, own=True),
    "the proof": Case("fora", {"granularity": "stack"}, lost={1: (1,)}),
    "the first step, blindly": Case("fora", {"granularity": "stack"}, lost={1: (0,)}, blind=True, own=True),
    "a shape": Case("teacache", {"threshold": 0.7}, shrinks=True, own=True),
}
CASES = {
    f"{kind}: {name}": case
    for kind, cases in (("row", ROW), ("flux", FLUX), ("wan", WAN), ("apart", APART), ("lost", LOST))
    for name, case in cases.items()
}


def work(rank: int, folder: str) -> None:
    """All cases on this rank; results are written as they come, so that those before a hang are told."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.accelerator.device_count = lambda: 1  # type: ignore[assignment]  # diffusers divides by it, and a CPU counts as none
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=PATIENCE)
    for name, case in CASES.items():
        found = {"single": run(case, rank, whole=True), "split": run(case, rank, whole=False)}
        (Path(folder) / f"{name} {rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def run(case: Case, rank: int, whole: bool) -> dict[str, Any]:
    by_hand = case.model is Row
    split = ContextParallelConfig(ulysses_degree=2) if not by_hand and not whole else None
    group = dist.group.WORLD if by_hand and not whole and case.together else None
    pipe: Any = Row(None if whole else (rank, 2), None if case.own else group) if by_hand else case.model()
    if not by_hand:
        pipe.model.set_attention_backend("native")
    elif not whole:
        pipe.lost = case.lost.get(rank, ())
    if case.shrinks:
        pipe.tokens = lambda step: 15 if step < 5 else 14
    if split is not None and not case.late:
        pipe.model.enable_parallelism(config=split)
    caching = omnicache.enable(pipe, case.method, group=group, **case.options)
    if split is not None and case.late:
        pipe.model.enable_parallelism(config=split)
    with messages() as sent, torch.inference_mode() if case.blind else nullcontext():
        outs = [pipe() for _ in range(case.runs)]
    return {"computed": caching.computed, "out": outs[-1].tolist(), "messages": len(sent)}


@contextmanager
def messages() -> Iterator[list[Any]]:
    """OmniCache's own: the models only gather and exchange, and never sum."""
    sent: list[Any] = []
    plain: Callable[..., Any] = dist.all_reduce

    def counted(*args: Any, **kwargs: Any) -> Any:
        sent.append(kwargs.get("group"))
        return plain(*args, **kwargs)

    dist.all_reduce = counted  # type: ignore[assignment]
    try:
        yield sent
    finally:
        dist.all_reduce = plain
