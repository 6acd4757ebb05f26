"""What is asked of OmniCache on one denoiser, by running it: five questions, each answered from the real modules.

Work is counted independently of OmniCache: every parameter-holding leaf module that really runs counts with its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from tests.compat.tiny import Tiny, along
from torch import nn

import omnicache
from omnicache.runtime.streams import tensors_of

STEPS = 8
Outputs = list[tuple[torch.Tensor, ...]]


class Steps:
    """The least that a scheduler is: a list of timesteps, and a step."""

    def __init__(self) -> None:
        self.timesteps = torch.zeros(0)

    def set_timesteps(self, n: int, still: bool = False) -> None:
        self.timesteps = torch.full((n,), 1000.0) if still else torch.linspace(1000, 1000 / n, n)

    def step(self) -> None:
        pass


class Loop:
    """A denoiser under the name that a pipeline gives it, and its scheduler."""

    def __init__(self, name: str, tiny: Tiny):
        self.transformer, self.scheduler, self.tiny = tiny.build(name), Steps(), tiny

    @torch.no_grad()
    def __call__(self, still: bool = False, steps: int = STEPS, batch: int = 1) -> Outputs:
        self.scheduler.set_timesteps(steps, still=still)
        out = []
        for call in along(self.tiny, steps, batch, still):
            out.append(tuple(t.clone() for t in tensors_of(self.transformer(**call))))
            self.scheduler.step()
        return out


@contextmanager
def work(model: nn.Module) -> Iterator[list[int]]:
    """Counts parameters of the leaf modules that run, in the list's one entry."""
    done = [0]
    handles = []
    for module in model.modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        if own:

            def count(_: nn.Module, __: Any, own: int = own) -> None:
                done[0] += own

            handles.append(module.register_forward_pre_hook(count))
    try:
        yield done
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Answer:
    """Of one denoiser. Shares are of the work of a whole run of eight steps; None: refused, and ``notes`` says why.

    Attributes:
        exact: computing every step is bit-identical to no cache.
        static: share of the work that was skipped by a fixed schedule (every third step computed).
        still: largest relative error of reuse on a model whose inputs stand still: 0 up to rounding if wired rightly.
        dynamic: share that was skipped by a trigger that watches the run (half is asked of it).
        forecast: share that was skipped by a forecast from two computed steps.
        modules: share that was skipped by keeping attention and feed-forward outputs one by one.
        restored: after ``disable``, outputs, state_dict keys and attributes are what they were.
    """

    exact: bool | None = None
    static: float | None = None
    still: float | None = None
    dynamic: float | None = None
    forecast: float | None = None
    modules: float | None = None
    restored: bool | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that applies holds: something is skipped in every way, nothing is wrong."""
        shares = (self.static, self.dynamic, self.forecast)
        rightly = self.still is not None and self.still < 1e-3
        return bool(self.exact and self.restored and rightly and all(s is not None and s > 0 for s in shares))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def same(a: Outputs, b: Outputs) -> bool:
    return len(a) == len(b) and all(len(x) == len(y) and all(map(torch.equal, x, y)) for x, y in zip(a, b, strict=True))


def difference(a: Outputs, b: Outputs) -> float:
    """Largest relative L2 difference of any output of any step."""
    pairs = [(u, v) for x, y in zip(a, b, strict=True) for u, v in zip(x, y, strict=True) if u.is_floating_point()]
    found = [float((u - v).norm() / u.norm().clamp_min(1e-12)) for u, v in pairs]
    return math.inf if any(math.isnan(d) for d in found) else max(found)


def ask(name: str, tiny: Tiny) -> Answer:
    """All questions about one class."""
    answer, loop = Answer(), Loop(name, tiny)
    model = loop.transformer
    attributes, keys = set(model.__dict__), list(model.state_dict())
    with work(model) as done:
        plain = loop()
        whole = done[0]
    if not all(torch.isfinite(t).all() for x in plain for t in x):
        raise FloatingPointError(f"{name}: the tiny model gives numbers that are not finite")
    if not same(plain, loop()):
        raise ArithmeticError(f"{name}: the tiny model does not give the same twice")

    def skipped(method: str, **options: Any) -> float | None:
        try:
            with omnicache.cache(loop, method, **options) as run, work(model) as done:
                out = loop()
        except omnicache.OmniCacheError as refusal:
            answer.notes.append(f"{method}: {refusal}")
            return None
        if not all(torch.isfinite(t).all() for x in out for t in x):
            answer.notes.append(f"{method}: gave numbers that are not finite")
            return None
        share = 1 - done[0] / whole
        if share <= 0:
            answer.notes.extend(f"{method}: {n}" for n in run.trace.notes)
        return round(share, 4)

    answer.static = skipped("fora", interval=3, granularity="stack")
    answer.dynamic = skipped("teacache", threshold=1e9)
    answer.forecast = skipped("taylorseer", interval=3, warmup=2)
    answer.modules = skipped("fora", interval=3)
    if answer.static is not None:
        with omnicache.cache(loop, "fora", interval=1, granularity="stack"):
            answer.exact = same(plain, loop())
    still = loop(still=True)
    for method, options in (("fora", {"granularity": "stack"}), ("fora", {}), ("taylorseer", {"interval": 3, "warmup": 2})):
        try:
            with omnicache.cache(loop, method, **options) as run, work(model) as done:
                answer.still = max(answer.still or 0.0, difference(still, loop(still=True)))
        except omnicache.OmniCacheError:
            continue  # said above
        if done[0] >= whole and run.computed.strip("#"):
            answer.notes.append(f"{method}: nothing was reused on inputs that stand still: {run.computed}")
    answer.restored = same(plain, loop()) and set(model.__dict__) == attributes and list(model.state_dict()) == keys
    return answer
