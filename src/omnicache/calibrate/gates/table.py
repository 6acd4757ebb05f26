from __future__ import annotations

from collections.abc import Iterable

import torch

from omnicache.calibrate.gates.mix import Weigh
from omnicache.tables import Rows

LIMIT = 5.0
"""Logits stay within it on both sides, as released: a gate of 0.993 can still learn."""

BETAS = (0.9, 0.95)
"""A gate near its limit has small gradients. With torch's 0.999 it would be held there by the large ones that led to it."""


class TableGates:
    """One logit for each module at each gated step; ``sigmoid`` of it is how much the module is computed.

    They begin at 0 rather than drawn at random, as released: in a short fit what they began with would still be seen in the end.

    Args:
        steps: the gated steps; the others are computed.
        modules: how many there are.
        device: where the model is.
    """

    def __init__(self, steps: Iterable[int], modules: int, device: torch.device | str = "cpu"):
        self.modules = modules
        self.logits = {n: torch.zeros(modules, device=device, requires_grad=True) for n in steps}
        self._adam: torch.optim.Optimizer | None = None

    def soft(self, step: int) -> torch.Tensor:
        """``(modules,)``, with gradients."""
        return torch.sigmoid(self.logits[step])

    def weigh(self, step: int) -> Weigh:
        """The gates of a step, for a ``Mix``, made when they are asked for: gradients are recorded then."""
        return lambda i, _: self.soft(step)[i]

    def worth(self, step: int, loss: torch.Tensor) -> torch.Tensor:
        """How much of the loss each module of a step saves when it is computed a little more, ``(modules,)``."""
        soft = self.soft(step).detach()
        return -torch.autograd.grad(loss, self.logits[step])[0] / (soft * (1 - soft))

    def learn(self, step: int, loss: torch.Tensor, rate: float) -> None:
        """One step of AdamW on the gates of one step, without weight decay. The moments of the others do not move."""
        if self._adam is None:
            self._adam = torch.optim.AdamW(self.logits.values(), lr=rate, betas=BETAS, weight_decay=0.0)
        row = self.logits[step]
        (row.grad,) = torch.autograd.grad(loss, row)
        self._adam.step()
        row.grad = None
        with torch.no_grad():
            row.clamp_(-LIMIT, LIMIT)

    def computed(self) -> float:
        """The mean of all gates."""
        return float(torch.stack([row.detach().sigmoid().mean() for row in self.logits.values()]).mean())

    def table(self, total: int) -> list[list[float]]:
        """All gates by module and step, 1 at steps without."""
        rows = torch.ones(total, self.modules)
        for n, row in self.logits.items():
            rows[n] = row.detach().float().cpu().sigmoid()
        return rows.T.tolist()

    def schedule(self, total: int, reuse: float, threshold: float | None) -> Rows:
        """The hard table: a row for each module of a run of ``total`` steps.

        A module is reused where its gate is at most ``threshold``; without one, the lowest gates are, as many as make a share
        ``reuse`` of all modules and steps.
        """
        flat = [(float(row.detach()[m]), n, m) for n, row in self.logits.items() for m in range(self.modules)]
        if threshold is None:
            chosen = sorted(flat)[: round(reuse * total * self.modules)]
        else:
            chosen = [g for g in flat if torch.sigmoid(torch.tensor(g[0])) <= threshold]
        marks = [["#"] * total for _ in range(self.modules)]
        for _, n, m in chosen:
            marks[m][n] = "."
        return tuple(map("".join, marks))


__all__ = ["TableGates"]
