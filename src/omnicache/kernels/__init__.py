"""Element-wise work of the caches. ``reference`` is plain torch; faster twins must equal it."""

from omnicache.kernels.reference import (
    change_of,
    change_sums,
    fill_rows,
    gather_rows,
    inverse_of,
    most_alike,
    relative_change,
    scatter_rows,
    take_rows,
    weighted_sum,
)

__all__ = [
    "change_of",
    "change_sums",
    "fill_rows",
    "gather_rows",
    "inverse_of",
    "most_alike",
    "relative_change",
    "scatter_rows",
    "take_rows",
    "weighted_sum",
]
