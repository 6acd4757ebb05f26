"""No cache, and fewer of the sampler's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene
from omnicache.tuning.ladders import FEW

SHARES = tuple(k / 20 for k in range(2, 20))


def ladder(steps: int, shares: Sequence[float] = SHARES) -> list[int]:
    """Numbers of steps below ``steps``: every small one, and these shares."""
    return sorted({k for k in (*range(2, FEW + 1), *(round(steps * share) for share in shares)) if 1 < k < steps})


def _settings(scene: Scene) -> list[Setting]:
    return [Setting({"steps": k}, f"{k} steps") for k in ladder(scene.steps)]


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    return Worn(call={"num_inference_steps": options["steps"]})


CONTENDER = Contender("fewer-steps", "fewer steps", _settings, _put)
