from __future__ import annotations

import torch

from omnicache.runtime.ranks import Ranks

SHIFT = 2e-3
"""So far off the line an output may be, as a share of what guidance has shifted it by,"""
SLACK = {torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""and as a share of itself, where the dtype rounds: two units of its last place."""


def blend_of(handed: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, ranks: Ranks) -> float | None:
    """The number c of guidance ``a + c (b - a)``, from what was ``handed`` to the scheduler; None if that is no such blend.

    Above 1, b is the conditional branch; below 0, a is. ``handed`` may hold the blend twice (DiT), and lack the channels of a
    learned variance. Waits for a device.
    """
    if handed is None:
        return None
    if handed.shape[:1] == (2 * len(a),):
        handed, again = handed.chunk(2)
        if not torch.equal(handed, again):
            return None
    if handed.ndim == a.ndim >= 2 and handed.shape[1] < a.shape[1]:
        a, b = a[:, : handed.shape[1]], b[:, : handed.shape[1]]
    if handed.shape != a.shape or handed.device != a.device:
        return None
    slack = max(SLACK.get(t.dtype, 1e-3) for t in (handed, a))
    m, start, shift = handed.float(), a.float(), b.float() - a.float()
    moved = m - start
    sums = ranks.total([torch.stack([(p * q).sum() for p, q in ((moved, shift), (shift, shift), (moved, moved), (m, m))])])[0]
    along, shifts, moves, whole = sums.tolist()
    if not shifts > 0:  # equal branches, or NaN
        return None
    off = max(moves - along * along / shifts, 0.0)
    return along / shifts if off <= SHIFT**2 * moves + slack**2 * whole else None
