from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omnicache.calibrate.gates.mix import Weigh
from omnicache.calibrate.gates.table import BETAS
from omnicache.runtime.executors.partial import stream_name
from omnicache.weights import Weights


class LazyGates:
    """A vector for each module at each gated step: ``s = sigmoid(sum over rows of w . z_row)`` says how much a sample is computed.

    Vectors are learned in units in which a typical input moves its logit by as much as one component: sums over rows are large, and
    of another size in each module. They begin at 0, where ``s`` is a half.

    Attributes:
        seen: of the evaluation in progress, ``s`` of each module, ``(samples,)``.
    """

    def __init__(self, steps: tuple[int, ...], modules: int):
        self.steps, self.modules = steps, modules
        self.seen: dict[int, torch.Tensor] = {}
        self._vectors: dict[tuple[int, int], torch.Tensor] = {}
        self._units: dict[int, list[torch.Tensor]] = {}
        self._unit: dict[int, float] = {}
        self._free: dict[int, torch.Tensor] = {}
        self._adam: torch.optim.Optimizer | None = None

    def looking(self, step: int) -> Weigh:
        """Gates of a half that depend on no input, to find out how large inputs are and what computing is worth."""
        self.seen, self._free = {}, {}

        def weigh(i: int, bound: Mapping[str, Any]) -> torch.Tensor:
            z = _summed(bound)
            self._units.setdefault(i, []).append(z.abs().sum(-1).mean())
            self._vectors[step, i] = torch.zeros(z.shape[-1], device=z.device, requires_grad=True)
            self._free[i] = torch.zeros(len(z), device=z.device, requires_grad=True)
            self.seen[i] = torch.sigmoid(self._free[i])
            return self.seen[i]

        return weigh

    def weigh(self, step: int) -> Weigh:
        """The gates of a step, for a ``Mix``. Modules that were not looked at are computed."""
        self.seen = {}

        def weigh(i: int, bound: Mapping[str, Any]) -> torch.Tensor:
            z = _summed(bound)
            vector = self._vectors.get((step, i))
            if vector is None or vector.shape[0] != z.shape[-1]:
                return torch.ones(len(z), device=z.device)
            self.seen[i] = torch.sigmoid(z @ vector / self.unit(i))
            return self.seen[i]

        return weigh

    def all(self) -> torch.Tensor:
        """The gates of the last evaluation, ``(samples, modules)``."""
        return torch.stack(list(self.seen.values()), dim=1)

    def worth(self, loss: torch.Tensor) -> torch.Tensor:
        """While looking: how much of the loss each module of each sample saves when it is computed a little more, in the units of a
        price on the mean over samples."""
        found = torch.autograd.grad(loss, list(self._free.values()))
        return torch.cat([-4 * len(g) * g for g in found])  # at a logit of 0 a gate moves by a quarter

    def learn(self, step: int, loss: torch.Tensor, rate: float) -> None:
        """One step of AdamW on the vectors of one step, without weight decay."""
        if self._adam is None:
            self._adam = torch.optim.AdamW(self._vectors.values(), lr=rate, betas=BETAS, weight_decay=0.0)
        mine = [self._vectors[step, i] for i in self.seen]
        for vector, grad in zip(mine, torch.autograd.grad(loss, mine), strict=True):
            vector.grad = grad
        self._adam.step()
        self._adam.zero_grad()

    def unit(self, module: int) -> float:
        """The mean over samples and steps of the L1 norm of a module's input, summed over its rows."""
        if module not in self._unit:
            self._unit[module] = max(float(torch.stack(self._units[module]).mean()), 1e-12)
        return self._unit[module]

    def weights(self, total: int) -> tuple[Weights, ...]:
        """For each module the vectors of a run of ``total`` steps, ``(total, width)``; zeros where there are none."""
        made = []
        for i in range(self.modules):
            mine = {n: v.detach().float().cpu() / self.unit(i) for (n, m), v in self._vectors.items() if m == i}
            table = torch.zeros(total, next((len(v) for v in mine.values()), 1))
            for n, vector in mine.items():
                table[n] = vector
            made.append(Weights(table))
        return tuple(made)


def _summed(bound: Mapping[str, Any]) -> torch.Tensor:
    """What a gate looks at: the module's input, summed over its rows, ``(samples, width)``."""
    x = bound[stream_name(bound)]
    return x.detach().float().sum(1)


__all__ = ["LazyGates"]
