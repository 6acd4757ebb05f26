"""Element-wise work of the caches. ``reference`` is plain torch; faster twins must equal it."""

from omnicache.kernels.reference import change_of, change_sums, gather_rows, relative_change, scatter_rows, weighted_sum

__all__ = ["change_of", "change_sums", "gather_rows", "relative_change", "scatter_rows", "weighted_sum"]
