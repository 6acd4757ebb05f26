"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much a comparison with peers measures.

    Attributes:
        samples: held-out inputs.
        tuning: inputs that settings are chosen by.
        batch: drawn at once.
        first_pairs: timed of every setting.
        finalists: of a contender and a goal: the fastest settings that reach it are timed again before one is chosen.
        final_pairs: timed of those.
        pairs: timed of the chosen ones, and of each duel.
        most: settings of a contender; None for all.
        minutes: that it may take, of this machine's time.
        quick: whether it is a first look only.
    """

    samples: int = 256
    tuning: int = 16
    batch: int = 4
    first_pairs: int = 2
    finalists: int = 3
    final_pairs: int = 4
    pairs: int = 9
    most: int | None = None
    minutes: float = 120.0
    quick: bool = False

    def batches(self, which: str) -> list[tuple[int, int]]:
        """Of the ``"tuning"`` or ``"held"`` inputs."""
        count = self.tuning if which == "tuning" else self.samples
        return [(i, min(i + self.batch, count)) for i in range(0, count, self.batch)]


FULL = {"picture": Size(), "clip": Size(samples=64, batch=1, pairs=7, minutes=240.0)}
QUICK = {
    "picture": Size(samples=16, tuning=8, first_pairs=2, finalists=2, final_pairs=3, pairs=7, most=8, minutes=15.0, quick=True),
    "clip": Size(
        samples=4, tuning=2, batch=1, first_pairs=2, finalists=2, final_pairs=2, pairs=5, most=4, minutes=20.0, quick=True
    ),
}


def spread(count: int) -> list[int]:
    """The numbers below ``count`` in an order whose every beginning is spread over all of them."""
    order, step = [], 1 << max(count - 1, 0).bit_length()
    while step >= 1:
        order += [i for i in range(0, count, step) if i not in order]
        step //= 2
    return order
