from __future__ import annotations

import math
from typing import Annotated

from omnicache.policy import value
from omnicache.predictors.taylor import Taylor, climbed
from omnicache.schema import Choice, Range


@value
class Hermite(Taylor):
    """Taylor's ladder under scaled Hermite polynomials: ``sum_i D_i / i! * sigma^i H_i(sigma k)`` (HiCache), physicists' ``H``.

    With ``sigma`` of 1 / sqrt(2) order 1 is Taylor's; smaller ones damp. ``basis="damped"`` is its ablation, ``(sigma^2 k)^i`` in
    place of the polynomials: what of the gain is damping.
    """

    sigma: Annotated[float, Range(0.01, 1.0)] = 0.5
    basis: Annotated[str, Choice(("hermite", "damped"))] = "hermite"

    @property
    def exact_degree(self) -> int:  # type: ignore[override]
        whole = self.sigma == 1 if self.basis == "damped" else math.isclose(2 * self.sigma**2, 1)
        return min(self.order, 1) if whole else 0

    def weights(self, past: tuple[float, ...], now: float) -> tuple[float, ...]:
        ahead, s = now - past[0], self.sigma

        def factor(i: int) -> float:
            grown = (s * s * ahead) ** i if self.basis == "damped" else s**i * hermite(i, s * ahead)
            return grown / math.factorial(i)

        return climbed(past, factor)


def hermite(degree: int, x: float) -> float:
    """The physicists' Hermite polynomial ``H_degree`` at ``x``."""
    below, here = 0.0, 1.0
    for i in range(degree):
        below, here = here, 2 * x * here - 2 * i * below
    return here
