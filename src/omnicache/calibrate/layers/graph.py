"""Which layers of a model take what which others give."""

from __future__ import annotations

from omnicache.calibrate.layers.refine import Node
from omnicache.models.map import ModelMap


def graph(model: ModelMap) -> tuple[tuple[Node, ...], tuple[int, ...]]:
    """Nodes for ``refine``, and which of them are the model's layers.

    The layers of a transformer are increments on one stream, which is always live: each takes the sum of all before it, and the
    output takes them all. So nothing is ever dead, and no computation has old inputs only. Those of a U-Net hand on outputs: above
    one that is reused, what no skip connection needs is dead.
    """
    parents = model.parents or tuple(tuple(range(-1, n)) for n in range(len(model.sites("block"))))
    last = (len(parents),) if model.parents else tuple(range(len(parents) + 1))
    layers = [Node(tuple(p + 1 for p in each)) for each in parents]
    return (Node(), *layers, Node(last, output=True)), tuple(range(1, len(layers) + 1))
