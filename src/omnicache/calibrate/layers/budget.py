"""What every solver of the Layered Cache is given: the cells, what each saves, and how much must be saved in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnicache.errors import OmniCacheError

Rows = tuple[str, ...]
"""A plan by layer: one character a step, ``#`` computed and ``.`` reused."""
Cell = tuple[int, int]
"""A layer and a step."""


@dataclass(frozen=True)
class Budget:
    """The cells that may be reused, and the share of the run's time to save (OmniCache-MD, Algorithm 1).

    Attributes:
        share: ``share[l][t]`` of the whole run's time that reusing layer ``l`` at step ``t`` saves; they and ``rest`` sum to 1.
        target: the share to save, ``1 - 1 / speedup``.
        interval: every such step is a refresh step, at which all layers are computed, so that no value gets older than
            ``interval - 1`` steps.
    """

    share: tuple[tuple[float, ...], ...]
    target: float
    interval: int

    @classmethod
    def of(cls, lat: Sequence[Sequence[float]], speedup: float, interval: int = 5, rest: float = 0.0) -> Budget:
        """From seconds: ``lat[l][t]`` that a reuse saves, and ``rest`` that no reuse can save (0 in the paper).

        Raises:
            OmniCacheError: reusing all candidates is not enough; the largest possible speedup is in the message.
        """
        whole = sum(map(sum, lat)) + rest
        if not whole > 0:
            raise OmniCacheError("The layers take no time that could be saved.")
        made = cls(tuple(tuple(v / whole for v in row) for row in lat), 1 - 1 / speedup, interval)
        most = made.saved(made.cells)
        if most < made.target - 1e-12:
            largest = int(100 / (1 - most)) / 100 if most < 1 else float("inf")
            raise OmniCacheError(
                f"A speedup of {speedup:g} is infeasible: with every layer reused at every step but each {interval}th it is "
                f"{largest:.2f}, the largest possible. Ask for less, or for a longer interval than {interval}."
            )
        return made

    @property
    def layers(self) -> int:
        return len(self.share)

    @property
    def steps(self) -> int:
        return len(self.share[0])

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The candidates, layer by layer. What saves nothing is none."""
        return tuple((n, t) for n, row in enumerate(self.share) for t, v in enumerate(row) if t % self.interval and v > 0)

    def saved(self, cells: Sequence[Cell]) -> float:
        return sum(self.share[n][t] for n, t in cells)

    def rows(self, cells: Sequence[Cell]) -> Rows:
        """The plan that reuses these cells."""
        chosen = set(cells)
        return tuple("".join("." if (n, t) in chosen else "#" for t in range(self.steps)) for n in range(self.layers))
