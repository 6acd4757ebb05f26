"""All about one plan on one pipeline: what it gains, how its pictures look, and where the error comes from."""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from omnicache.calibrate.record import collected
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call, check_inputs, denoisers, with_scheduler
from omnicache.measure.flops import denoiser_flops
from omnicache.measure.likeness import likeness
from omnicache.measure.look import Look, look, relative
from omnicache.measure.made import pictures
from omnicache.measure.speed import Pair, pairs_of, summary
from omnicache.plan import Plan
from omnicache.runtime.trace import Trace


@dataclass(frozen=True)
class Drawn:
    """One input without and with a plan.

    Attributes:
        label: what was asked for, in words.
        uncached: the pictures ``(n, 3, h, w)`` or clips ``(n, f, 3, h, w)``; None where the pipeline makes something else.
        cached: the same with the plan.
        path: latents ``x_0 ... x_T`` without it; empty where they were not seen.
        look: the run with it.
        psnr: in dB, the mean over pictures; None without pictures.
    """

    label: str
    uncached: Tensor | None
    cached: Tensor | None
    path: list[Tensor]
    look: Look
    psnr: float | None

    @property
    def errors(self) -> list[float]:
        """Relative error of the latents after each step; nothing where the two runs have other numbers of steps."""
        if len(self.path) != len(self.look.latents):
            return []
        return [relative(a, b) for a, b in zip(self.look.latents[1:], self.path[1:], strict=True)]

    @property
    def end(self) -> float | None:
        """The relative error of the final latents."""
        return relative(self.look.latents[-1], self.path[-1]) if self.path and self.look.latents else None


@dataclass(frozen=True)
class Study:
    """What was measured of a plan.

    Attributes:
        plan: the plan.
        drawn: the inputs.
        pairs: timed calls of the first input, without and with the plan by turns.
        work: share of the denoiser's operations that were done.
        calls: for each input the arguments of the pipeline's call, anew each time.
    """

    plan: Plan
    drawn: tuple[Drawn, ...]
    pairs: tuple[Pair, ...]
    work: float
    calls: tuple[Callable[[], dict[str, Any]], ...]

    @property
    def speed(self) -> dict[str, Any]:
        """See ``measure.speed.summary``."""
        return summary(self.pairs)

    @property
    def speedup(self) -> float:
        return self.speed["speedup"]["median"]

    @property
    def whole(self) -> dict[str, float]:
        """Of whole calls: median seconds ``uncached`` and ``cached``, ``speedup``, and the ``share`` of the uncached call that the
        denoiser takes."""
        return {
            "uncached": statistics.median(p.without.whole for p in self.pairs),
            "cached": statistics.median(p.within.whole for p in self.pairs),
            "speedup": statistics.median(p.without.whole / p.within.whole for p in self.pairs),
            "share": statistics.median(p.uncached / p.without.whole for p in self.pairs),
        }

    @property
    def seconds_each(self) -> dict[str, float]:
        """Median seconds of an evaluation: ``uncached``, and with the plan by the marks of ``run.computed``."""
        by: dict[str, list[float]] = {"uncached": [s for p in self.pairs for s in p.without.each]}
        for p in self.pairs:
            records = p.run.trace.records
            if len(records) == len(p.within.each):
                for record, seconds in zip(records, p.within.each, strict=True):
                    by.setdefault(record.mark, []).append(seconds)
        return {mark: statistics.median(seconds) for mark, seconds in by.items() if seconds}

    @property
    def seconds_in(self) -> dict[str, dict[str, float]]:
        """Where the seconds of a call go, ``"uncached"`` and ``"cached"``, each of the call of median length: by the marks of
        ``run.computed``, and the ``rest``, outside of the denoiser."""
        plain = sorted(self.pairs, key=lambda p: p.without.whole)[len(self.pairs) // 2]
        within = sorted(self.pairs, key=lambda p: p.within.whole)[len(self.pairs) // 2]
        records, by = within.run.trace.records, dict[str, float]()
        marks = [r.mark for r in records] if len(records) == len(within.within.each) else ["#"] * len(within.within.each)
        for mark, seconds in zip(marks, within.within.each, strict=True):
            by[mark] = by.get(mark, 0.0) + seconds
        return {
            "uncached": {"#": plain.uncached, "rest": plain.without.whole - plain.uncached},
            "cached": {**{mark: by[mark] for mark in "#o?." if mark in by}, "rest": within.within.whole - within.cached},
        }

    @property
    def trace(self) -> Trace:
        """Of the first input's run in which nothing but the denoiser was timed."""
        return self.pairs[-1].run.trace

    @property
    def psnr(self) -> list[float] | None:
        """Of each input, in dB."""
        found = [one.psnr for one in self.drawn if one.psnr is not None]
        return found if len(found) == len(self.drawn) else None

    @property
    def errors(self) -> list[float]:
        """Relative error of the latents after each step, the mean over the inputs; nothing where it is not known."""
        each = [one.errors for one in self.drawn]
        if not each or not all(each) or len({len(one) for one in each}) > 1:
            return []
        return [statistics.fmean(step) for step in zip(*each, strict=True)]

    @property
    def repair(self) -> str:
        """The name of the corrector that acts at the sampler, so that the denoiser's output is not yet what the step is made of; ""
        if there is none."""
        fixing = self.plan.fixing
        return type(fixing.fix).__name__ if fixing is not None and fixing.fix is not None and fixing.fix.samples else ""

    @property
    def cache_bytes(self) -> int:
        return max(one.look.run.cache_bytes for one in self.drawn)


def study(
    pipe: Any,
    plan: Plan,
    inputs: Sequence[Any],
    call: Mapping[str, Any],
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    pairs: int = 5,
    done: Callable[[str], None] = lambda what: None,
) -> Study:
    """Draw inputs without and with a plan, time the first one, and count its work.

    Args:
        pipe: a diffusers pipeline.
        plan: what to study.
        inputs: as of ``omnicache.calibrate``; three or four do.
        call: arguments of every call.
        labels: of the inputs, in words.
        seed: of the first input's noise; the next ones count on.
        pairs: timed calls without and with the plan each.
        done: told what is done next.

    Raises:
        OmniCacheError: the plan does not fit the pipeline, or it is none.
    """
    if isinstance(pipe, nn.Module):
        raise OmniCacheError(f"A study draws with a pipeline. Pass the one around {type(pipe).__name__}, not the network alone.")
    listed = check_inputs(inputs)
    settings = dict(call)
    if "output_type" not in settings and "output_type" in inspect.signature(pipe.__call__).parameters:
        settings["output_type"] = "pt"
    calls = tuple(lambda i=i, one=one: {**settings, **as_call(pipe, one, seed + i)} for i, one in enumerate(listed))
    names = [*labels, *(_words(pipe, one) for one in listed[len(labels) :])]
    drawn = []
    with torch.no_grad():
        for i, one in enumerate(calls):
            done(f"drawing {names[i]}")
            drawn.append(_drawn(pipe, plan, names[i], one))
        done("timing")
        took = pairs_of(pipe, lambda: pipe(**calls[0]()), plan, pairs)
        done("counting")
        work = _work(pipe, plan, lambda: pipe(**calls[0]()))
    return Study(plan, tuple(drawn), tuple(replace(p, made=None) for p in took), work, calls)


def _drawn(pipe: Any, plan: Plan, label: str, call: Callable[[], dict[str, Any]]) -> Drawn:
    path: list[Tensor] = []
    base = pictures(_along(pipe, call, path))
    seen = look(pipe, plan, lambda: pipe(**call()))
    made = pictures(seen.made)
    seen.made = None
    if base is None or made is None or base.shape != made.shape:
        return Drawn(label, None, None, path, seen, None)
    like = float(likeness(made, base).mean())
    return Drawn(label, base, made, path, seen, like)


def _along(pipe: Any, call: Callable[[], dict[str, Any]], path: list[Tensor]) -> Any:
    """An uncached call; ``path`` gets its latents."""
    if with_scheduler(pipe) is None:
        return pipe(**call())
    with collected(pipe.scheduler, path):
        return pipe(**call())


def _work(pipe: Any, plan: Plan, draw: Callable[[], Any]) -> float:
    import omnicache

    model = denoisers(pipe)[0]
    whole = denoiser_flops(model, draw)
    with omnicache.cache(pipe, plan):
        done = denoiser_flops(model, draw)
    return done / whole if whole else math.nan


def _words(pipe: Any, given: Any) -> str:
    """What an input asks for."""
    known = {number: name for name, number in (getattr(pipe, "labels", None) or {}).items()}
    parts = list(given.values()) if isinstance(given, Mapping) else [given]
    parts = [p[0] if isinstance(p, (list, tuple)) and len(p) == 1 else p for p in parts]
    plain = [str(known.get(p, p)) for p in parts if isinstance(p, (str, int, float))]
    return ", ".join(plain) or "unconditional"
