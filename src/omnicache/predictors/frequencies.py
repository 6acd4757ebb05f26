from __future__ import annotations

import functools
import math
from dataclasses import field, replace
from typing import Annotated

import torch

from omnicache.kernels import weighted_sum
from omnicache.models.grid import Grid
from omnicache.policy import History, Predictor, Tensors, value
from omnicache.predictors.hold import Hold
from omnicache.predictors.linear import Linear
from omnicache.runtime.step import Step
from omnicache.schema import Choice, Range


@value
class Frequencies(Predictor):
    """Forecasts low and high frequencies of a feature apart (FreqCa): by default the low ones are held.

    Both parts of a split are linear in the feature, and add up to it, so whole values are kept and one sum of them is split when an
    estimate is made. In float32.

    Attributes:
        low, high: the forecasts of either part, linear in the history.
        cutoff: share of the highest frequency up to which one is low.
        transform: "dct", the cosine transform of each frame's grid of tokens, or "fft", along all tokens in their order.
    """

    low: Linear = field(default_factory=Hold)
    high: Linear = field(default_factory=Hold)
    cutoff: Annotated[float, Range(0, 1)] = 0.1
    transform: Annotated[str, Choice(("dct", "fft"))] = "dct"
    needs_grid = True

    @property
    def exact_degree(self) -> int:  # type: ignore[override]
        return min(self.low.exact_degree or 0, self.high.exact_degree or 0)

    def lower(self) -> Frequencies | None:
        high = self.high.lower()
        return replace(self, high=high) if isinstance(high, Linear) else None

    def suits(self, step: Step, y: Tensors) -> bool:
        return any(_placed(t, step) for t in y)

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        longer = self.high if self.high.keep >= self.low.keep else self.low
        return longer.learn(history, step, x, y)

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        low, high = (_whole(how, history, step) for how in (self.low, self.high))
        apart = tuple(a - b for a, b in zip(low, high, strict=True))
        made = []
        for column in zip(*(e.tensors for e in history), strict=True):
            if not _placed(column[0], step):  # the text beside the picture: nothing reads it after the last block
                made.append(weighted_sum(column, low))
                continue
            forecast, held = (weighted_sum([t.float() for t in column], weights) for weights in (high, apart))
            made.append((forecast + self.split(held, step)).to(column[0].dtype))
        return tuple(made)

    def split(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """The low frequencies of ``x``: tokens ``(batch, tokens, width)``, or ``(batch, channels, height, width)``."""
        if x.ndim > 3:
            return _smooth(x, (-2, -1), self.cutoff)
        grid = _grid(x, step)
        assert grid is not None
        film = grid.film(x)
        if self.transform == "dct":
            smooth = _smooth(film, (2, 3), self.cutoff)
        else:
            spectrum = torch.fft.rfft(film.flatten(1, 3), dim=1)
            spectrum[:, math.floor(self.cutoff * (spectrum.shape[1] - 1) + 1e-9) + 1 :] = 0
            smooth = torch.fft.irfft(spectrum, n=film[0, ..., 0].numel(), dim=1).view_as(film)
        return torch.cat((torch.zeros_like(x[:, : grid.before]), grid.back(smooth)), 1)


def _whole(how: Linear, history: History, step: Step) -> tuple[float, ...]:
    """The weights, zero for entries that it would not have kept."""
    weights = how.weights_at(history[: how.keep], step)
    return (*weights, *(0.0,) * (len(history) - len(weights)))


def _placed(x: torch.Tensor, step: Step) -> bool:
    """Whether it is known how its tokens lie in a grid."""
    return x.ndim > 3 or _grid(x, step) is not None


def _grid(x: torch.Tensor, step: Step) -> Grid | None:
    if x.ndim != 3 or step.latent is None:
        return None
    grid = Grid.of(step.latent, *x.shape[:2], temporal=x.shape[1] == step.latent.frames)
    return grid if grid is not None and grid.fits(x) else None


def _smooth(x: torch.Tensor, axes: tuple[int, int], cutoff: float) -> torch.Tensor:
    """The part of ``x`` whose cosines have a radius of at most ``cutoff`` times the largest."""
    (a, b), (h, w) = (_cosines(x.shape[axis]).to(x.device) for axis in axes), (x.shape[axis] for axis in axes)
    radius = (torch.arange(h, device=x.device)[:, None].float() ** 2 + torch.arange(w, device=x.device) ** 2).sqrt()
    keep = radius <= cutoff * radius.max()
    rows = x.movedim(axes, (-2, -1))
    return (a.T @ ((a @ rows @ b.T) * keep) @ b).movedim((-2, -1), axes)


@functools.lru_cache(maxsize=32)
def _cosines(n: int) -> torch.Tensor:
    """The orthonormal DCT-II of ``n`` points, ``(frequency, point)``."""
    at = torch.arange(n, dtype=torch.float64)
    table = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * math.sqrt(2 / n)
    table[0] /= math.sqrt(2)
    return table.float()
