"""What triggers with a threshold say of the steps that reached it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from omnicache.policy import Remark


def crossed(name: str, threshold: float, rises: Sequence[float]) -> tuple[Remark, ...]:
    """A remark where steps reached ``threshold`` by themselves: what each of ``rises`` adds is more than may be gathered in all.

    ``name`` is what rises. The better threshold is above the median of them, so that half of the steps would not have reached it.
    """
    rises = [rise for rise in rises if math.isfinite(rise)]
    over = [rise for rise in rises if rise >= threshold]
    if not over:
        return ()
    middle = statistics.median(rises)
    if len(over) == len(rises):
        said = f"{name} reached the threshold {threshold:g} at all {len(rises)} steps where it was known; the smallest was"
        return (Remark(f"{said} {min(rises):.3g}", len(over), "threshold", threshold, above(middle)),)
    said = f"{name} alone reached the threshold {threshold:g} at {len(over)} of {len(rises)} steps; the median was {middle:.3g}"
    return (Remark(said, len(over), "threshold", threshold, above(max(middle, threshold))),)


def above(x: float) -> float:
    """The next number of two digits above ``x``: 0.0803 gives 0.081."""
    if not math.isfinite(x) or x <= 0:
        return x
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    near = float(f"{x:.1e}")
    return near if near > x else float(f"{near + unit:.1e}")
