from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

from omnicache.policy import History, value
from omnicache.predictors.linear import Linear
from omnicache.predictors.taylor import newton
from omnicache.runtime.step import Step
from omnicache.schema import Choice, Range

SPACINGS = ("nodes", "unit", "log-snr")
LONGEST = 64
"""Computed values that are kept where every one of them counts."""


@value
class AdamsBashforth(Linear):
    """Forecasts the next value from the last ``terms`` by alternating binomial weights (AB-Cache, S(44)): 2, -1 or 3, -3, 1.

    Those weights are meant for values one step apart. ``spacing="nodes"`` takes instead the weights that do the same for computed
    values wherever they lie, and is exact for polynomials of degree ``terms - 1``; where they are one step apart, both agree.
    ``spacing="unit"`` puts an estimate wherever a step was reused, as released: each is then made of estimates, and all the values
    that were ever computed count. The size of an error grows up to ``2 ** terms - 1`` times in a step. ``spacing="log-snr"`` is the
    paper's derivation: the last value alone, times ``decay``.
    """

    terms: Annotated[int, Range(1, 8)] = 2
    spacing: Annotated[str, Choice(SPACINGS)] = "nodes"

    @property
    def keep(self) -> int:  # type: ignore[override]
        return {"nodes": self.terms, "unit": LONGEST, "log-snr": 1}[self.spacing]

    @property
    def exact_degree(self) -> int | None:  # type: ignore[override]
        return self.terms - 1 if self.spacing == "nodes" else None

    def lower(self) -> AdamsBashforth | None:
        return replace(self, terms=self.terms - 1) if self.terms > 1 else None

    def weights_at(self, history: History, step: Step) -> tuple[float, ...]:
        if self.spacing != "log-snr":
            return super().weights_at(history, step)
        now, then = step.mix, history[0].step.mix
        if now is None or then is None or min(*now, *then) <= 0:
            return (1.0,)
        return (decay(math.log(now[0] / now[1]) - math.log(then[0] / then[1])),)

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        if self.spacing == "nodes":
            return newton(past, now)
        known = {p: tuple(float(i == j) for j in range(len(past))) for i, p in enumerate(past)}
        line: list[tuple[float, ...]] = []  # every step's value, newest first, as weights of the computed ones
        for at in range(round(min(past)), round(now) + 1):
            made = known.get(float(at))
            if made is None or at == now:
                signs = [(-1) ** i * math.comb(min(self.terms, len(line)), i + 1) for i in range(min(self.terms, len(line)))]
                made = tuple(sum(s * w[j] for s, w in zip(signs, line, strict=False)) for j in range(len(past)))
            line.insert(0, made)
        return line[0]


def decay(h: float) -> float:
    """The ratio of an output at log-SNR ``l`` to the one at ``l - h`` under which a step of an exponential integrator is its
    two-step Adams-Bashforth form (AB-Cache, S(43), whose arguments are exchanged in the survey)."""
    return h * math.exp(2 * h) / (3 * h * math.exp(h) - 2 * math.exp(h) + 2)
