"""Which settings nothing else beats, and how a setting stands to fewer steps at its speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from omnicache.measure.quality import mean95
from omnicache.measure.ways import ways


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Of ``{name: (speedup, quality)}`` the names of those for which nothing is as fast and as good, and better in one; slowest
    first."""
    best, found = float("-inf"), []
    for name, (_, quality) in sorted(points.items(), key=lambda one: (-one[1][0], -one[1][1])):
        if quality > best:
            best = quality
            found.append(name)
    return found[::-1]


def below(points: Mapping[str, tuple[float, float]], name: str) -> float:
    """How far a point is below the best quality that is reached at its speed, on the frontier and the lines between; 0 on it."""
    edge = [points[one] for one in frontier(points)]
    speed, quality = points[name]
    reached = [sum(w * edge[i][1] for i, w in way.items()) for way in ways([x for x, _ in edge], speed)]
    return max(0.0, max(reached, default=quality) - quality)


def lead(speedup: float, each: Sequence[float], fewer: Sequence[tuple[float, Sequence[float]]]) -> dict[str, float] | None:
    """What a setting is ahead of fewer steps at equal speed: the mean difference in dB, sample by sample, with its 95 % interval.

    Args:
        speedup: of the setting.
        each: PSNR of its samples.
        fewer: speedup of runs of fewer steps, with the PSNR of the same samples. The best that they reach at this speed or
            faster counts, on the line between two of them, too.

    Returns:
        ``{"mean", "low", "high", "fewer"}``, the last being the PSNR that fewer steps reach; None where all of them are slower.
    """
    curves = [torch.tensor(one, dtype=torch.float64) for _, one in fewer]
    lines = [sum((w * curves[i] for i, w in way.items()), torch.zeros(())) for way in ways([x for x, _ in fewer], speedup)]
    if not lines:
        return None
    best = max(lines, key=lambda line: float(line.mean()))
    return {**mean95(torch.tensor(each, dtype=torch.float64) - best), "fewer": float(best.mean())}


def verdict(row: Mapping[str, Any]) -> str:
    """One word on a row of a comparison: "reference", "slower" than without a cache, "better" or "worse" than fewer steps at its
    speed, "even" where the interval holds both, "beyond" where fewer steps were not as fast."""
    ahead = row.get("lead")
    if row["method"] in ("none", "fewer-steps"):
        return "reference"
    if row["speedup"]["median"] < 1:
        return "slower"
    if ahead is None:
        return "beyond"
    return "better" if ahead["low"] > 0 else "worse" if ahead["high"] < 0 else "even"
