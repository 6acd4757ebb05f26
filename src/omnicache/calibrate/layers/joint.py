"""The error of many reused cells together, from measurements of single cells and of whole steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

KEPT = 0.995
"""The share of the squared errors, each scaled to one, that is kept where they are written in fewer numbers."""


@dataclass(frozen=True, eq=False)
class Joint:
    """The error vector of a plan, to first order.

    - A value that is ``a`` steps old is off by the sum of the last ``a`` changes, so a reuse of age ``a`` leaves the sum of the
      errors that reuses one step old leave at the last ``a`` steps.
    - Layers reused at one step do not add up: each one's error alone contains how all later layers answer to it, and those that
      are reused do not answer. So every pair of layers that are reused together takes something back, the same for all pairs of a
      step and an age, and such that all layers together leave what was measured for all layers together.
    - Errors of different steps add up.

    Attributes:
        alone: ``(layers, steps, ages, numbers)``, the error that each reuse leaves by itself.
        pair: ``(steps, ages, numbers)``, what each reuse takes back for every other layer that is reused at its step.
    """

    alone: torch.Tensor
    pair: torch.Tensor

    @classmethod
    def of(cls, errors: torch.Tensor, together: torch.Tensor | None = None, ages: int | None = None) -> Joint:
        """From measurements.

        Args:
            errors: ``(layers, steps, numbers)``, of single cells, one step old.
            together: ``(steps, n, numbers)``, of all layers, one to ``n`` steps old; None if layers do add up.
            ages: the oldest age in a plan; ``n`` unless given.
        """
        layers, steps = errors.shape[:2]
        most = max(min(ages or (together.shape[1] if together is not None else steps - 1), steps - 1), 1)
        known = together if together is not None else errors.new_zeros(steps, 0, errors.shape[2])
        errors, known = _fewer_numbers(errors, known)
        alone = torch.zeros(layers, steps, most, errors.shape[2], dtype=errors.dtype)
        for age in range(most):
            alone[:, age:, age] = (alone[:, age:, age - 1] if age else 0) + errors[:, : steps - age]
        pair = torch.zeros_like(alone[0])
        for age in range(most if known.shape[1] and layers > 1 else 0):
            here = min(age, known.shape[1] - 1)  # of ages that were not tried it grows as they do
            pair[:, age] = (alone[:, :, here].sum(0) - known[:, here]) / (layers * (layers - 1)) * ((age + 1) / (here + 1))
        return cls(alone, pair)

    @property
    def whole(self) -> Joint:
        """The same for plans that reuse all layers at once, as a model of one layer."""
        layers = self.alone.shape[0]
        return Joint((self.alone.sum(0) - layers * (layers - 1) * self.pair)[None], torch.zeros_like(self.pair))

    def error(self, rows: Sequence[str]) -> torch.Tensor:
        """The error vector of a plan by layer."""
        total = torch.zeros_like(self.pair[0, 0])
        for t in range(self.alone.shape[1]):
            reused = {n: len(row[: t + 1]) - len(row[: t + 1].rstrip(".")) - 1 for n, row in enumerate(rows) if row[t] == "."}
            for n, age in reused.items():
                age = min(age, self.alone.shape[2] - 1)
                total = total + self.alone[n, t, age] - (len(reused) - 1) * self.pair[t, age]
        return total

    def size(self, rows: Sequence[str]) -> float:
        """The length of that vector."""
        return math.sqrt(float(self.error(rows).square().sum()))


def _fewer_numbers(errors: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same vectors in the principal directions of all of them scaled to one length, so that small ones are kept as well."""
    both = torch.cat([errors.flatten(0, 1), known.flatten(0, 1)]).double()
    units = both / both.norm(dim=1, keepdim=True).clamp_min(1e-30)
    values, vectors = torch.linalg.eigh(units @ units.T)
    values, vectors = values.flip(0).clamp_min(1e-30), vectors.flip(1)
    count = 1 + int((values.cumsum(0) < KEPT * values.sum()).sum())
    small = both @ units.T @ (vectors[:, :count] / values[:count].sqrt())
    cells = errors.shape[0] * errors.shape[1]
    return small[:cells].reshape(*errors.shape[:2], count), small[cells:].reshape(*known.shape[:2], count)
