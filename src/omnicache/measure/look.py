"""One run of a pipeline with a plan, looked at closely: what ran, what it held, and how far each step strayed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import omnicache
from omnicache.api import Caching
from omnicache.calibrate.record import collected
from omnicache.integrations.pipelines import denoisers, with_scheduler
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.runtime.hook import Hook
from omnicache.runtime.streams import tensors_of

PARTS = ("attention", "cross_attention", "mlp")
MOST_ROWS = 64
MOST_NUMBERS = 1 << 16
"""Of an output that is compared, evenly taken."""


@dataclass
class Look:
    """What was seen of a run, by steps of the sampler (evaluations of the denoiser, where one step takes several).

    Attributes:
        made: what the pipeline returned.
        run: to be printed.
        latents: ``x_0 ... x_T`` as the scheduler saw them; empty where no step of the pipeline's scheduler was seen.
        bytes: what was kept after each step.
        strayed: relative error of the denoiser's output at each step, against that of the whole model on the same latents.
        ran: of each layer (or part of one) by name, the share of an uncached evaluation's rows that it ran on at each step.
        off: of each, the relative error of what it handed on, likewise; NaN where it was passed over.
    """

    made: Any
    run: Caching
    latents: list[Tensor] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    strayed: list[float] = field(default_factory=list)
    ran: dict[str, list[float]] = field(default_factory=dict)
    off: dict[str, list[float]] = field(default_factory=dict)


def look(pipe: Any, plan: Plan, draw: Callable[[], Any]) -> Look:
    """Run ``draw``, which calls the pipeline once, with the plan.

    After each evaluation the model runs a second time, on the same latents and without the cache, so what is timed meanwhile says
    nothing. Of several denoisers the first is looked at.
    """
    model = denoisers(pipe)[0]
    watcher, latents = _Watcher(model, layers_of(model, plan)), list[Tensor]()
    with ExitStack() as stack:
        stack.enter_context(watcher.inside())
        run = stack.enter_context(omnicache.cache(pipe, plan))
        stack.enter_context(watcher.outside(run))
        if with_scheduler(pipe) is not None:
            stack.enter_context(collected(pipe.scheduler, latents))
        made = draw()
    return Look(made, run, latents, *watcher.told())


@dataclass(frozen=True)
class Layers:
    """What is looked at.

    Attributes:
        modules: of each by name; what the one that is called last returns is what it hands on.
        parts: whether they are the parts of layers that a plan governs, and not layers.
        whole: whether none was left out.
    """

    modules: dict[str, tuple[nn.Module, ...]] = field(default_factory=dict)
    parts: bool = False
    whole: bool = True


def layers_of(model: nn.Module, plan: Plan) -> Layers:
    """The parts of layers that a plan governs; its layers, where it governs no parts; at most 64, evenly taken."""
    if not plan.policies:
        return Layers()
    found = discover(model)
    governed = {site for policy in plan.policies for site in policy.where.select(found) if site.kind in PARTS}
    sites = [site for site in found.all if site in governed] or list(found.sites("block") or found.sites("layer"))
    every = max(1, -(-len(sites) // MOST_ROWS))
    return Layers({site.name: site.modules for site in sites[::every]}, bool(governed), every == 1)


class _Watcher:
    """Hooks below those of the cache, which count what really runs, and above them, which see what is handed on."""

    def __init__(self, model: nn.Module, layers: Layers):
        self.model, self.layers, self.parts, self.whole = model, layers.modules, layers.parts, layers.whole
        self._root: Hook | None = None
        self._truth = False
        self._rows: dict[tuple[str, bool], int] = defaultdict(int)
        self._out: dict[tuple[str, bool], Tensor] = {}
        self._steps: list[int] = []
        self._held: dict[int, int] = {}
        self._error: dict[int, list[float]] = defaultdict(list)
        self._ran: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._off: dict[tuple[str, int], list[float]] = defaultdict(list)

    def inside(self) -> ExitStack:
        self._root = Hook(self.model, lambda call, args, kwargs: call(*args, **kwargs))
        return _removed([self._root, *self._on_layers(self._counts)])

    def outside(self, run: Caching) -> ExitStack:
        return _removed([*self._on_layers(self._sees), Hook(self.model, partial(self._evaluates, run))])

    def _on_layers(self, handler: Callable[..., Any]) -> list[Hook]:
        return [Hook(module, partial(handler, name)) for name, modules in self.layers.items() for module in modules]

    def _counts(self, name: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._rows[name, self._truth] += sum(t.numel() for t in tensors_of((args, kwargs))[:1])
        return call(*args, **kwargs)

    def _sees(self, name: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        if found := tensors_of(out):
            self._out[name, self._truth] = _some(found[0])
        return out

    def _evaluates(self, run: Caching, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        assert self._root is not None
        self._rows.clear()
        self._out.clear()
        out = call(*args, **kwargs)
        records = run.trace.records
        step = records[-1].step.index if records else len(self._steps)
        self._held[step] = max(self._held.get(step, 0), sum(session.bytes() for session in run.sessions))
        kept = [t.clone() for t in tensors_of(out)[:1]]  # some models return a buffer of theirs
        self._truth = True
        try:
            with torch.no_grad():
                true = self._root.beneath(*args, **kwargs)
        finally:
            self._truth = False
        if step not in self._steps:
            self._steps.append(step)
        self._error[step] += [relative(a, b) for a, b in zip(kept, tensors_of(true)[:1], strict=True)]
        for name in self.layers:
            whole = self._rows[name, True]
            self._ran[name, step].append(min(1.0, self._rows[name, False] / whole) if whole else 0.0)
            a, b = self._out.get((name, False)), self._out.get((name, True))
            if a is not None and b is not None and a.shape == b.shape:
                self._off[name, step].append(relative(a, b))
        return out

    def told(self) -> tuple[list[int], list[float], dict[str, list[float]], dict[str, list[float]]]:
        steps = sorted(self._steps)
        ran = {name: [_mean(self._ran[name, step]) for step in steps] for name in self.layers}
        off = {name: [_mean(self._off[name, step]) for step in steps] for name in self.layers}
        if not self.parts:
            off = _handed_on(ran, off, self.whole)
        return [self._held[s] for s in steps], [_mean(self._error[s]) for s in steps], ran, off


def _handed_on(ran: dict[str, list[float]], off: dict[str, list[float]], whole: bool) -> dict[str, list[float]]:
    """Without what layers hand on that are passed over and followed by another such: it is what they were given."""
    names = list(ran)
    found = {}
    for name, after in zip(names, [*names[1:], None], strict=False):
        last = [1.0] * len(ran[name]) if after is None else ran[after] if whole else [0.0] * len(ran[name])
        found[name] = [e if r > 0 or n > 0 else math.nan for e, r, n in zip(off[name], ran[name], last, strict=True)]
    return found


def relative(a: Tensor, b: Tensor) -> float:
    """``|a - b| / |b|``; NaN where that is no number."""
    b = b.float()
    size = float(b.norm())
    return float((a.float() - b).norm()) / size if size > 0 else math.nan


def _some(t: Tensor) -> Tensor:
    flat = t.detach().flatten()
    return flat[:: max(1, -(-len(flat) // MOST_NUMBERS))].clone()


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _removed(hooks: list[Hook]) -> ExitStack:
    stack = ExitStack()
    for hook in hooks:
        stack.callback(hook.remove)
    return stack
