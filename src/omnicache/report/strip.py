"""Which steps a run computed, as a strip of bars."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

WORDS = {"#": "computed", "o": "partly computed", "?": "drafted and checked", ".": "reused"}
CLASSES = {"#": "full", "o": "part", "?": "draft", ".": "reuse"}
HEIGHTS = {"#": 10.0, "o": 5.5, "?": 7.5, ".": 2.0}  # kinds differ in height too, not in colour alone


class Strip:
    """A strip of bars, one per step, from a string of ``# o ? .``; an unknown character counts as computed."""

    def __init__(self, computed: str, steps: int) -> None:
        self.cells = "".join(c if c in WORDS else "#" for c in computed)
        self.steps = max(steps, len(self.cells), 1)

    @property
    def summary(self) -> str:
        """``26 of 50 computed, 24 reused``."""
        if not self.cells:
            return "not recorded"
        count = Counter(self.cells)
        first = f"{self.count} computed"
        return ", ".join([first, *(f"{count[kind]} {WORDS[kind]}" for kind in "o?." if count[kind])])

    @property
    def count(self) -> str:
        """``26 of 50``."""
        return f"{self.cells.count('#')} of {len(self.cells)}"

    @property
    def kinds(self) -> set[str]:
        return set(self.cells)

    @property
    def svg(self) -> str:
        """The bars, to be stretched to any width; a run of fewer steps fills only its share of it."""
        gap = 0.16 if self.steps <= 120 else 0.0
        bars, at = [], 0
        for kind, group in groupby(self.cells):
            length = len(list(group))
            each = range(at, at + length) if gap else [at]
            width = 1 - gap if gap else length
            y = 10 - HEIGHTS[kind]
            path = "".join(f"M{x + gap / 2:g} {y:g}h{width:g}V10h{-width:g}z" for x in each)
            bars.append(f'<path class="{CLASSES[kind]}" d="{path}"/>')
            at += length
        return (
            f'<svg class="strip" viewBox="0 0 {self.steps} 10" preserveAspectRatio="none" role="img" '
            f'aria-label="{self.summary}">{"".join(bars)}</svg>'
        )

    @staticmethod
    def ticks(steps: int) -> list[tuple[int, float]]:
        """Step numbers from 1 on with where their middle is, in percent of the width."""
        every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if steps / n <= 8), 1000)
        marks = sorted({1, *range(every, steps + 1, every), steps})
        if len(marks) > 2 and marks[-1] - marks[-2] < every / 2:
            del marks[-2]
        return [(mark, 100 * (mark - 0.5) / steps) for mark in marks]
