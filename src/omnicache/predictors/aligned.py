from __future__ import annotations

from typing import Annotated

import torch

from omnicache.policy import Entry, History, Predictor, Tensors, value
from omnicache.runtime.step import Step
from omnicache.schema import Range


@value
class Aligned(Predictor):
    """Extrapolates the increment of all blocks as far as the first ones, which have run, show that it has gone (DiCache).

    With ``R`` what all blocks have added at the two newest computed steps, ``P`` what the first ones had, and ``P_n`` what they add
    now: ``y = x + R_2 + g (R_1 - R_2)`` with ``g = mean|P_n - P_2| / mean|P_1 - P_2|`` for each sample, from 1 to ``limit``. Other
    streams than that which entered the first block (text) keep their increments. For the blocks after those that are watched.
    """

    limit: Annotated[float, Range(1)] = 1.5
    needs_input = True
    needs_entry = True
    copies = 2
    exact_degree = None

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        kept = y
        if x:
            *given, entry = x
            at = _same(given, entry)
            whole = [b - (entry if i == at else a) for i, (a, b) in enumerate(zip(given, y, strict=True))]
            kept = tuple(torch.stack((r, given[i] - entry)) if i == at else r for i, r in enumerate(whole))
        return (Entry(step, kept), *history)[:2]

    def lower(self) -> Predictor | None:
        return None

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        *given, entry = x
        newest, at = history[0].tensors, _same(given, entry)
        out = [a + r for i, (a, r) in enumerate(zip(given, newest, strict=True)) if i != at]
        if at is not None:
            r1, p1 = newest[at]
            if len(history) == 1:
                reached = r1
            else:
                r2, p2 = history[1].tensors[at]
                reached = torch.lerp(r2, r1, self.gamma(given[at], entry, p1, p2).to(r1.dtype))
            out.insert(at, entry + reached)
        return tuple(out)

    def gamma(self, x: torch.Tensor, entry: torch.Tensor, newest: torch.Tensor, older: torch.Tensor) -> torch.Tensor:
        """How far to go, for each sample: 1 where the first blocks have moved by no more than what rounding does."""
        moved, told, size = (t.flatten(1).float().abs().mean(1) for t in (x - entry - older, newest - older, x))
        ratio = torch.where(told > 4 * torch.finfo(x.dtype).eps * size, moved / told, torch.ones_like(told)).nan_to_num(1.0)
        return ratio.clamp(1.0, self.limit).view(-1, *(1,) * (x.ndim - 1))


def _same(given: list[torch.Tensor], entry: torch.Tensor) -> int | None:
    """Which of the streams is the one that entered the first block."""
    return next((i for i, a in enumerate(given) if a.shape == entry.shape), None)
