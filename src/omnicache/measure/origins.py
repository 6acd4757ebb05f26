"""Which part of a run its error comes from: the plan with reuse in one part only, measured."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import omnicache
from omnicache.calibrate.record import collected
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import with_scheduler
from omnicache.measure.look import relative
from omnicache.measure.study import Study
from omnicache.plan import Plan
from omnicache.registry import calibrated
from omnicache.triggers import Steps

PARTS = 3


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Attributes:
        first, last: its steps, counted from 0, the last one among them.
        error: relative error of the final latents where only steps of this part were reused, and all others computed.
    """

    first: int
    last: int
    error: float

    def __str__(self) -> str:
        return f"{self.first + 1} to {self.last + 1}" if self.last > self.first else f"{self.first + 1}"


def origins(pipe: Any, study: Study) -> list[Part]:
    """The parts of the first input's run, about three, each from a computed step to the next; nothing for plans that were fitted to
    their own schedule, and where there is but one part or no latents were seen."""
    plan, one = study.plan, study.drawn[0]
    if calibrated(plan) or plan.fixing is not None or with_scheduler(pipe) is None or not one.errors:
        return []
    marks = one.look.run.computed
    spans = [found.span() for found in re.finditer(r"[^#]+", marks)]
    if len(spans) < 2:
        return []
    each = -(-len(spans) // PARTS)
    found = []
    for group in (spans[i : i + each] for i in range(0, len(spans), each)):
        first, last = group[0][0], group[-1][1] - 1
        try:
            error = _error(pipe, plan, study, [i for i in range(len(marks)) if not first <= i <= last])
        except OmniCacheError:
            return []  # a plan whose triggers cannot be joined with another
        found.append(Part(first, last, error))
    return found


@torch.no_grad()
def _error(pipe: Any, plan: Plan, study: Study, computed: list[int]) -> float:
    also = Steps(tuple(computed))
    partly = replace(plan, policies=tuple(replace(p, when=p.when | also) for p in plan.policies))
    latents: list[Tensor] = []
    with omnicache.cache(pipe, partly), collected(pipe.scheduler, latents):
        pipe(**study.calls[0]())
    return relative(latents[-1], study.drawn[0].path[-1])
