"""A setting's figures, from pairs of two processes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from omnicache.kept.files import kept
from omnicache.measure.likeness import likeness
from omnicache.measure.peers.size import Size
from omnicache.measure.peers.worker import Drawn, Worker
from omnicache.measure.quality import mean95
from omnicache.measure.speed import median95

SAVES = 1.02
"""Times as fast as uncached; where the pictures are the same, and any of many pairs is below it, nothing was saved."""


class Gauge:
    """Measures settings against the uncached pipeline's process.

    Args:
        plain: gives that process, which starts when it is first asked for.
        folder: where the uncached pictures are kept.
    """

    def __init__(self, plain: Callable[[], Worker], size: Size, folder: Path):
        self.plain, self.size, self.folder = plain, size, folder
        self._uncached: dict[str, torch.Tensor] = {}

    def uncached(self, which: str) -> torch.Tensor:
        """All pictures of the ``"tuning"`` or ``"held"`` inputs."""
        if which not in self._uncached:
            self._uncached[which] = kept(
                self.folder / f"uncached-{which}.pt",
                lambda: torch.cat([self.plain().draw(which, *batch).made for batch in self.size.batches(which)]),
            )
        return self._uncached[which]

    def same(self, worker: Worker) -> float:
        """PSNR in dB of what another process draws without any setting; 100 if it is the same."""
        batch = self.size.batches("tuning")[0]
        return float(likeness(worker.draw("tuning", *batch).made, self.uncached("tuning")[: batch[1]]).mean())

    def first(self, worker: Worker, settled: Callable[[float, float], str]) -> dict[str, Any]:
        """On the tuning inputs, of the setting that ``worker`` has put on; on the first batch alone, in one pair, where
        ``settled`` gives a reason for that, told the PSNR and the speedup there."""
        base, batches = self.uncached("tuning"), self.size.batches("tuning")
        warm = worker.draw("tuning", *batches[0]).made
        pairs = self._pairs(self.plain(), worker, "tuning", batches[:1], 1)
        speedup = pairs[0][0].inside / pairs[0][1].inside
        why = settled(float(likeness(warm, base[: len(warm)]).mean()), speedup)
        if why:
            batches = batches[:1]
        else:
            pairs += self._pairs(self.plain(), worker, "tuning", batches, self.size.first_pairs, since=1)
        made = torch.cat([pair[1].made for pair in pairs[: len(batches)]])
        made = torch.cat([made, *(worker.draw("tuning", *batch).made for batch in batches[len(pairs) :])])
        same = torch.equal(made, base[: len(made)])
        if same and not why and all(one.inside >= SAVES * other.inside for one, other in pairs):  # perhaps by luck
            pairs += self._pairs(self.plain(), worker, "tuning", batches, len(pairs) + self.size.final_pairs, since=len(pairs))
        found = self._figures(made, base, pairs)
        found["settled"] = why
        found["again"] = torch.equal(warm, made[: len(warm)])
        found["nothing"] = same and found["speedup"]["low"] < SAVES
        return found

    def again(self, worker: Worker, known: Sequence[Sequence[float]]) -> dict[str, Any]:
        """More pairs on the tuning inputs, and the speedup by those and the ``known`` ones."""
        batches = self.size.batches("tuning")
        worker.draw("tuning", *batches[0])
        pairs = self._pairs(self.plain(), worker, "tuning", batches, self.size.final_pairs)
        took = [*known, *([one.inside, other.inside] for one, other in pairs)]
        return {"pairs": [list(pair) for pair in took], "speedup": median95([a / b for a, b in took]), "load": load()}

    def closely(self, worker: Worker) -> dict[str, Any]:
        """The same on all held-out inputs."""
        base, batches = self.uncached("held"), self.size.batches("held")
        worker.draw("held", *batches[0])
        pairs = self._pairs(self.plain(), worker, "held", batches, self.size.pairs)
        made = [pair[1].made for pair in pairs[: len(batches)]]
        made += [worker.draw("held", *batch).made for batch in batches[len(made) :]]
        return self._figures(torch.cat(made), base, pairs)

    def duel(self, ours: Worker, rival: Worker) -> dict[str, Any]:
        """How many times as fast as a rival, on held-out inputs, both with their settings on."""
        batches = self.size.batches("held")
        for worker in (ours, rival):
            worker.draw("held", *batches[0])
        pairs = self._pairs(rival, ours, "held", batches, self.size.pairs)
        return {"ratio": ratios(pairs, "inside"), "whole": ratios(pairs, "whole"), "pairs": len(pairs), "load": load()}

    def _pairs(
        self, one: Worker, other: Worker, which: str, batches: Sequence[tuple[int, int]], count: int, since: int = 0
    ) -> list[tuple[Drawn, Drawn]]:
        """Both on the same inputs, by turns; who goes first by turns, too. All but the pairs before number ``since``."""
        made = []
        for i in range(since, count):
            batch = batches[i % len(batches)]
            if i % 2:
                second = other.draw(which, *batch)
                made.append((one.draw(which, *batch), second))
            else:
                made.append((one.draw(which, *batch), other.draw(which, *batch)))
        return made

    def _figures(self, made: torch.Tensor, base: torch.Tensor, pairs: Sequence[tuple[Drawn, Drawn]]) -> dict[str, Any]:
        each = likeness(made, base[: len(made)])
        return {
            "samples": len(made),
            "psnr": mean95(each),
            "speedup": ratios(pairs, "inside"),
            "whole": ratios(pairs, "whole"),
            "seconds": statistics.median(pair[1].inside for pair in pairs) / self.size.batch,
            "pairs": [[pair[0].inside, pair[1].inside] for pair in pairs],
            "load": load(),
        }


def ratios(pairs: Sequence[tuple[Drawn, Drawn]], where: str) -> dict[str, float]:
    """How many times as fast the second of each pair is, "inside" the denoiser or in the "whole" call."""
    return median95([getattr(one, where) / getattr(other, where) for one, other in pairs])


def load() -> float | None:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
