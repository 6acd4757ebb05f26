"""Values that the branches of guidance share: their mean, in the place of what each has learned at a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnicache.policy import Tensors
from omnicache.runtime.halves import Half
from omnicache.runtime.store import own

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass

UNCLEAR = "The mean of the branches of guidance is not clear, and what it would stand for is computed."


def pool(passes: Sequence[Pass], clear: bool) -> None:
    """Give both branches their mean, wherever they have just learned a value of which the predictor wants that.

    Args:
        passes: the step's: two calls, or one over both halves of a batch.
        clear: whether these are the two branches of guidance; if not, the values are let go of.
    """
    run, index = passes[0].run, passes[0].step.index
    branches = [p.branch.named_cells() for p in passes]
    for key, first in branches[0].items():
        cells = [named[key] for named in branches if key in named]
        since = first.policy.how.pools
        values = [c.history[0].tensors for c in cells if c.history and c.history[0].step.index == index]
        if since is None or index < since or not values:
            continue
        if len(passes) == 1:
            values = _halves(values[0])
        if not clear or len(values) != 2:
            for cell in cells:
                cell.hold(())
            passes[0].trace.note(UNCLEAR)
            continue
        mean = tuple((a + b) / 2 for a, b in zip(*values, strict=True))
        kept = Half(0).join(mean, mean) if len(passes) == 1 else mean
        how = run.keeper.how[id(first.policy)]
        for i, cell in enumerate(cells):  # each with a copy of its own: the model may write to what it is lent
            cell.hold(how.learn(cell.history[1:], cell.history[0].step, (), own(kept) if i else kept))


def _halves(value: Tensors) -> list[Tensors]:
    if not all(t.ndim and t.shape[0] % 2 == 0 for t in value):
        return []
    return [tuple(Half(i).of(t) for t in value) for i in (0, 1)]
