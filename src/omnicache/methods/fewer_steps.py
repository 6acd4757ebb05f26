from __future__ import annotations

from typing import Annotated

from omnicache.plan import Plan
from omnicache.registry import Range, method


@method(
    "fewer-steps",
    off={"ratio": 1.0},
    axes={"when": "-", "where": "the sampler", "how": "-", "fix": "-"},
    architectures="any pipeline with a scheduler",
    sweep={"ratio": (0.9, 0.75, 0.6, 0.5, 0.35, 0.25, 0.15, 0.1)},
)
def fewer_steps(ratio: Annotated[float, Range(0.02, 1.0)] = 0.5) -> Plan:
    """No caching, but only ``ratio`` of the sampler's steps: a cache that loses to this is worthless."""
    return Plan("fewer-steps", options={"ratio": ratio}, steps=ratio)
