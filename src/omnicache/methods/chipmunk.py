from __future__ import annotations

from typing import Annotated

from omnicache.granularity import MLP, Attention, Called, CrossAttention, Stack, Within
from omnicache.plan import Plan
from omnicache.policy import Policy, Trigger
from omnicache.predictors import Hold
from omnicache.registry import Range, method
from omnicache.selectors import Keys, Neurons
from omnicache.triggers import Every, First, Steps
from omnicache.triggers.steps import Index

Share = Annotated[float, Range(0, 1)]


@method(
    "chipmunk",
    paper="Chipmunk: Training-Free Acceleration of Diffusion Transformers with Dynamic Column-Sparse Deltas",
    axes={"when": "every n-th step", "where": "attention by key, MLP by neuron", "how": "hold", "fix": "-"},
    architectures="transformers and U-Nets with attention and two-layer MLPs",
    off={"interval": 1},
    presets={
        "HunyuanVideoTransformer3DModel": {"mlp": 0.0, "attention": 0.05, "random_keys": 0.01, "dense": (0, 1, 10, 40)},
        "WanTransformer3DModel": {"mlp": 0.0, "attention": 0.10, "random_keys": 0.01, "local": 0},
    },
    sweep={"mlp": (0.7, 0.5, 0.3)},
)
def chipmunk(
    mlp: Share = 0.30,
    attention: Share = 0.165,
    random_neurons: Share = 0.05,
    random_keys: Share = 0.0,
    interval: Annotated[int, Range(1, 1000)] = 10,
    warmup: Annotated[int, Range(1)] = 2,
    dense: tuple[Index, ...] = (),
    edge: Annotated[int, Range(0)] = 2,
    refresh: Annotated[int, Range(1)] = 2,
    local: Annotated[int, Range(0)] | None = None,
    anew: bool = False,
    reuse: tuple[Index, ...] = (),
    seed: int = 0,
) -> Plan:
    """Between dense steps, computes only the neurons and keys that matter most, and corrects the kept outputs by their change.

    The defaults are the released ones for FLUX.1-dev with 50 steps.

    Args:
        mlp, attention: shares of neurons, and of keys, that are computed; 0 computes all of those modules always.
        random_neurons, random_keys: further shares, by chance.
        interval, warmup: one step in so many is dense, and of attention the first ones.
        dense: the dense steps of attention, in place of those.
        edge: so many first blocks are always dense.
        refresh: from step 10 on, neurons are chosen at every so many steps.
        local, anew: see ``selectors/keys.py``.
        reuse: steps that take the output of all blocks from the step before, with nothing computed but the model's ends.
        seed: of what is chosen by chance.
    """
    options = dict(locals())
    inner = Within(edge, None)
    every = Every(interval, phase=0)
    when: Trigger = Steps(dense) if dense else First(warmup) | every
    policies = [Policy(~Steps(reuse), Stack(), Hold())] if reuse else []
    if attention:
        where = Called((Attention() - CrossAttention()) & inner, "attention after the first blocks", optional=True)
        policies.append(Policy(when, where, Hold(), which=Keys(attention, random_keys, local, anew=anew, seed=seed)))
    if mlp:
        where = Called(MLP() & inner, "MLP after the first blocks", optional=True)
        policies.append(Policy(every, where, Hold(), which=Neurons(mlp, random_neurons, every=refresh, seed=seed)))
    return Plan("chipmunk", tuple(policies), options)
