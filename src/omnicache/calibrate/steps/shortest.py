"""The best steps to compute, as a shortest path."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from omnicache.calibrate.steps.fit import RIDGE
from omnicache.calibrate.steps.tape import Tape
from omnicache.errors import OmniCacheError

MOST = 128
"""Steps that may be chosen among; of longer runs every second or third."""


def among(steps: int) -> list[int]:
    """The steps that may be chosen."""
    return list(range(0, steps, -(-steps // MOST)))


def jumps(tape: Tape) -> torch.Tensor:
    """Mean squared error of the latents before step ``k``, told by those and the outputs of the computed steps ``h`` and ``i``,
    ``h < i < k``: ``(places, places, steps + 1)``, float64, infinite elsewhere. With ``h = i`` by ``i`` alone. The places are those
    of :func:`among`: all steps, of long runs some.

    All of it follows from the products of the uncached run's latents and outputs.
    """
    n, places = tape.steps, among(tape.steps)
    values = torch.cat([tape.latents, tape.outputs]).flatten(1).double().cpu()
    products = values @ values.T / values.shape[1]
    size = products.diagonal().clamp_min(1e-30).sqrt()
    cost = torch.full((len(places), len(places), n + 1), math.inf, dtype=torch.float64)
    for at, i in enumerate(places):
        for before, h in enumerate(places[: at + 1]):
            told = torch.tensor([i, n + 1 + i] if h == i else [i, n + 1 + i, h, n + 1 + h])
            later = torch.arange(i + 1, n + 1)
            unit = size[told]
            a = products[told][:, told] / unit / unit[:, None] + RIDGE * torch.eye(len(told), dtype=torch.float64)
            b = products[told][:, later] / unit[:, None]
            c = torch.linalg.solve(a, b)
            cost[before, at, i + 1 :] = (products.diagonal()[later] - 2 * (c * b).sum(0) + ((a @ c) * c).sum(0)).clamp_min(0)
            cost[before, at, i + 1] = 0.0  # the next step follows by itself
    return cost


def shortest(cost: torch.Tensor, computed: int) -> str:
    """The schedule with ``computed`` steps of least total cost, the first among them; see :func:`jumps`.

    Raises:
        OmniCacheError: that many cannot be chosen.
    """
    n = cost.shape[2] - 1
    places = among(n)
    if not 1 <= computed <= len(places):
        raise OmniCacheError(f"{computed} of {n} steps cannot be computed: choose from 1 to {len(places)}.")
    inner, last = cost[:, :, places], cost[:, :, n]
    best = torch.full_like(last, math.inf)
    best[0, 0] = 0.0
    back = []
    for _ in range(computed - 1):
        best, came = (best[:, :, None] + inner).min(0)  # (i, k): now the last two
        back.append(came)
    h, i = divmod(int((best + last).argmin()), len(places))
    path = [i]
    for came in reversed(back):
        path.append(h)
        h, i = int(came[h, i]), h
    chosen = {places[p] for p in path}
    return "".join("#" if s in chosen else "." for s in range(n))


def weighed(cost: torch.Tensor, growth: Sequence[float], power: float) -> torch.Tensor:
    """Costs times what an error of the latents before each step grows to by the end, to some power."""
    return cost * torch.tensor(growth, dtype=cost.dtype) ** (2 * power)


def alone(cost: torch.Tensor, marks: str) -> list[float]:
    """The cost of each step of a schedule that is reused, by itself; of a computed one nothing. See :func:`jumps`."""
    at = {place: i for i, place in enumerate(among(len(marks)))}
    found, before, last = list[float](), 0, 0
    for step, mark in enumerate(marks):
        if mark == "#":
            before, last = last, step
        found.append(0.0 if mark == "#" else float(cost[at[before], at[last], step + 1]))
    return found
