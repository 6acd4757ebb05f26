"""How what a plan was made for differs from where it is to be used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.fingerprint import fingerprint, other_weights
from omnicache.plan import Plan
from omnicache.sampler import described

Verdict = Literal["fine", "measured elsewhere", "refused"]
SIDES = ("height", "width")


@dataclass(frozen=True, repr=False)
class Difference:
    """One thing that a plan was made for.

    Attributes:
        what: "model", "weights", "latents", "num_inference_steps", "guidance_scale".
        then, now: its values.
        verdict: "fine"; "measured elsewhere": it runs, and what was measured does not hold; "refused": it does not run.
        why: a sentence where it is refused; else "".
    """

    what: str
    then: Any
    now: Any
    verdict: Verdict
    why: str = ""

    def __str__(self) -> str:
        told = f"{self.what}: {self.then}" + (f", here {self.now}" if self.now != self.then else "")
        return f"{told}: {self.verdict}" + (f". {self.why}" if self.why else "")

    __repr__ = __str__  # a list of them is what a notebook shows


def differences(plan: Plan, model: nn.Module, pipe: Any, call: Mapping[str, Any]) -> list[Difference]:
    """All that a plan was made for, each with whether it is the same here; see ``omnicache.check``. ``model`` is the denoiser."""
    found = fingerprint(model)
    usual = inspect.signature(type(pipe).__call__).parameters if call or hasattr(pipe, "scheduler") else {}
    asked = {name: p.default for name, p in usual.items()} | dict(call)
    told = []
    for what, then in plan.made_for.items():
        if what in found:
            now, why = found[what], f"Calibrate one for it: omnicache.calibrate(pipe, inputs, {plan.method!r})."
            told.append(Difference(what, then, now, "fine") if now == then else Difference(what, then, now, "refused", why))
        elif what == "weights":
            told.append(_judged(what, then, other_weights(plan.made_for, model) or then))
        elif what == "latents":
            told.append(_judged(what, tuple(then), _size(plan, pipe, model, asked)))
        elif what == "scheduler" and not hasattr(pipe, "scheduler"):
            continue
        elif what == "scheduler":
            now, why = described(pipe.scheduler), plan.misfit(pipe.scheduler)
            told.append(_judged(what, then, now, why[:1].upper() + why[1:] + "." if why else ""))
        else:
            known = asked.get(what, then)
            why = _misfit(plan, known) if what == "num_inference_steps" else ""
            measured = plan.measured.get("carried_over", {}).get(what, then)  # what was carried over was not measured here
            told.append(_judged(what, measured, known, why))
    return told


def _size(plan: Plan, pipe: Any, model: nn.Module, asked: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the latents for a height and width; those of the plan where they do not follow from its own in a known way."""
    then = tuple(plan.made_for["latents"])
    scale = getattr(pipe, "vae_scale_factor", getattr(pipe, "vae_scale_factor_spatial", 1))
    usual = getattr(pipe, "default_sample_size", getattr(getattr(model, "config", None), "sample_size", None))

    def shape(given: Mapping[str, Any]) -> tuple[int, ...]:
        pair = usual if isinstance(usual, (tuple, list)) and len(usual) == 2 else (usual, usual)
        both = [given[n] // scale if isinstance(given.get(n), int) else side for n, side in zip(SIDES, pair, strict=True)]
        sides = [side for side in both if isinstance(side, int)]
        if len(sides) < len(both):
            return then
        if len(then) > 2:
            return (*then[:-2], *sides)
        return (sides[0] // 2 * (sides[1] // 2), *then[1:])  # tokens of two by two latents, as of Flux

    return shape(asked) if shape(plan.made_for) == then else then


def _judged(what: str, then: Any, now: Any, why: str = "") -> Difference:
    if now == then:
        return Difference(what, then, now, "fine")
    return Difference(what, then, now, "refused" if why else "measured elsewhere", why)


def _misfit(plan: Plan, steps: Any) -> str:
    """Why a plan cannot serve a run of so many steps, and what can be done; "" if it can."""
    if not isinstance(steps, int) or not any(t.misfit(steps) for t in plan.triggers):
        return ""
    try:
        plan.for_steps(steps)
    except OmniCacheError as no:
        return str(no)
    return f"Its schedule is for another number of steps; plan.for_steps({steps}) carries it over, unmeasured."
