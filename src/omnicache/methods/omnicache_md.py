from __future__ import annotations

from typing import Annotated

from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Attention, Called, Inner, Temporal, Text, Within
from omnicache.plan import Plan
from omnicache.policy import Policy, Selector, Where
from omnicache.predictors import FromKept, Hold
from omnicache.registry import Choice, Range, method
from omnicache.selectors import Frames, FramesAndTokens, Positions, Tokens
from omnicache.triggers import First

Ratio = Annotated[float, Range(0, 0.9)]


@method(
    "omnicache-md",
    paper="OmniCache: a multidimensional cache for diffusion transformers (token, frame and block caches)",
    axes={"when": "the first step", "where": "attention (and MLP) by token, frame, position", "how": "hold", "fix": "-"},
    architectures="transformers and U-Nets with attention; frame and block caches where space and time are apart",
    off={"token": 0.0, "frame": 0.0, "block": 0.0},
    presets={
        "SD3Transformer2DModel": {"token": 0.5, "mlp": True, "edge": 4},
        "LatteTransformer3DModel": {"token": 0.2, "frame": 0.3, "block": 0.4, "edge": 1},
        "UNetSpatioTemporalConditionModel": {"token": 0.5, "frame": 0.5, "block": 0.4, "sharp": 1},
    },
    sweep={"token": (0.2, 0.3, 0.4, 0.5, 0.6)},
)
def omnicache_md(
    token: Ratio = 0.4,
    frame: Ratio = 0.0,
    block: Ratio = 0.0,
    mlp: bool = False,
    edge: Annotated[int, Range(0)] = 0,
    sharp: Annotated[int, Range(0)] = 0,
    patches: Annotated[int, Range(1)] = 4,
    hierarchy: tuple[Ratio, ...] = (),
    placement: Annotated[str, Choice(("s2t-t2s", "s2s-t2t"))] = "s2t-t2s",
    fill: Annotated[str, Choice(("cache", "match", "between"))] = "cache",
    first: Annotated[str, Choice(("whole", "match"))] = "whole",
    max_age: Annotated[int, Range(1)] | None = None,
    redraw: bool = True,
    aligned: bool = True,
    shared: Annotated[int, Range(1)] = 1,
    seed: int = 0,
) -> Plan:
    """Inside every step, computes only what is not nearly the same as something else, and takes the rest from the step before.

    Args:
        token: share of the tokens of a frame that its attention drops; at most 0.75, with ``frame`` 0.5.
        frame: share of frames that attention in space drops. For films 0.4 is a careful value.
        block: share of positions that attention along time drops. For films 0.3 is a careful value.
        mlp: whether tokens and frames are dropped from feed-forward modules, too.
        edge: so many first and last blocks are left alone.
        sharp: in so many last blocks, of a U-Net levels, no frames are dropped.
        patches: patches per side within which tokens and positions are compared (1: everywhere); fewer where so small ones could
            not drop the ratio.
        hierarchy: further shares, dropped after patches were joined by twos in each direction.
        placement: what is compressed where: space in layers along time and frames in layers along space, or, for the experiment,
            the other way round.
        fill: what stands in for what is dropped: its value of the step before, a copy of what it matched, or what it lies between.
        first: whether the first step is computed whole, or what it drops copies what it matched. Only where the cache fills.
        max_age: nothing is dropped more than so many steps in a row.
        shared: so many blocks in a row drop the same, found once: that is cheaper.
        redraw, aligned, seed: see ``selectors/base.py``.
    """
    options = dict(locals())
    common = {"hierarchy": hierarchy, "redraw": redraw, "aligned": aligned, "max_age": max_age, "shared": shared, "seed": seed}
    common["stand_in"] = fill if fill != "cache" else "none" if first == "whole" else "match"
    how, when = Hold() if fill == "cache" else FromKept(), First(int(fill == "cache" and first == "whole"))
    modules: Where = Attention() | MLP() if mlp else Attention()
    space, time = modules - Temporal() - Text(), Attention() & Temporal()
    if edge:
        space, time = space & Inner(edge), time & Inner(edge)

    def tokens_and(frame: float) -> Selector | None:
        if token and frame:
            return FramesAndTokens(token, frames=frame, **common)
        return frames(frame) or (Tokens(token, patches=patches, **common) if token else None)

    def frames(frame: float) -> Selector | None:
        return Frames(frame, patches=1, **common) if frame else None

    positions = Positions(block, patches=patches, **common) if block else None
    if placement == "s2t-t2s":
        last = Called(space & Within(-sharp), "attention in space in its last blocks", optional=True) if sharp else None
        chosen = [(space - last if last else space, tokens_and(frame)), (time, positions), (last, tokens_and(0.0))]
    elif token:
        raise OmniCacheError('placement="s2s-t2t" is the experiment of frames and blocks only: omnicache-md with token=0.')
    else:
        chosen = [(space, positions), (time, frames(frame))]
    policies = tuple(Policy(when, where, how, which=which) for where, which in chosen if where and which)
    return Plan("omnicache-md", policies, options)
