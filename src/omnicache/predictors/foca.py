from __future__ import annotations

from typing import Annotated

from omnicache.policy import value
from omnicache.predictors.linear import Linear
from omnicache.schema import Choice

Weights = tuple[float, ...]


@value
class Foca(Linear):
    """One step of an ordinary differential equation: a second-order backward difference predicts, Heun's rule corrects (FoCa).

    Written for gaps of any size, in which the paper's 4/3, -1/3 and 2/3 are those of equal ones. How the paper finds slopes is not
    told, so both readings are here: of three values, or of two, where the corrector changes nothing and all is a straight line.
    """

    slope: Annotated[str, Choice(("three-point", "two-point"))] = "three-point"
    exact_degree = 1

    @property
    def keep(self) -> int:  # type: ignore[override]
        return 3 if self.slope == "three-point" else 2

    def weights(self, past: tuple[float, ...], now: float) -> Weights:
        n = len(past)
        if n == 1:
            return (1.0,)
        values = [tuple(float(i == j) for j in range(n)) for i in range(n)]
        here = _slope(past, values)
        reached = predicted(past, now, values, here)
        there = _slope((now, *past)[:n], [reached, *values][:n])
        return corrected(now - past[0], values[0], here, there)


def predicted(past: tuple[float, ...], now: float, values: list[Weights], slope: Weights) -> Weights:
    """The second-order backward difference with a slope; with that at ``now`` it is exact on parabolas."""
    ahead, gap = now - past[0], past[0] - past[1]
    w = ahead / gap
    share = 1 / (1 + 2 * w)
    return _sum((share * (1 + w) ** 2, values[0]), (-share * w**2, values[1]), (share * (1 + w) * ahead, slope))


def corrected(ahead: float, value: Weights, here: Weights, there: Weights) -> Weights:
    """Heun's rule: the mean of the slopes at both ends."""
    return _sum((1.0, value), (ahead / 2, here), (ahead / 2, there))


def _slope(at: tuple[float, ...], values: list[Weights]) -> Weights:
    """The slope at the newest place of the polynomial through all values."""
    if len(at) == 2:
        return _sum((1 / (at[0] - at[1]), values[0]), (-1 / (at[0] - at[1]), values[1]))
    a, b, c = at
    return _sum(
        (1 / (a - b) + 1 / (a - c), values[0]),
        ((a - c) / ((b - a) * (b - c)), values[1]),
        ((a - b) / ((c - a) * (c - b)), values[2]),
    )


def _sum(*terms: tuple[float, Weights]) -> Weights:
    return tuple(sum(factor * weights[i] for factor, weights in terms) for i in range(len(terms[0][1])))
