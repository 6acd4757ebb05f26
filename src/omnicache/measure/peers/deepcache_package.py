"""The DeepCache package, for U-Nets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene

INTERVALS = (2, 3, 4, 5, 6, 8, 10)
BRANCHES = (0, 1, 3, 4)
"""Where the deep part begins: three numbers to a block, of which the third is its downsampler's."""


def _settings(scene: Scene) -> list[Setting]:
    _check(scene)
    last = 3 * len(scene.pipe.unet.down_blocks) - 1
    options = [{"interval": n, "branch": b} for n in INTERVALS for b in BRANCHES if b < last]
    return [Setting(one, f"every {one['interval']} steps, branch {one['branch']}") for one in options]


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    from DeepCache import DeepCacheSDHelper

    _check(scene)
    helper = DeepCacheSDHelper(pipe=scene.pipe)
    helper.set_params(cache_interval=options["interval"], cache_branch_id=options["branch"])
    helper.enable()
    return Worn(off=helper.disable)


def _check(scene: Scene) -> None:
    if not hasattr(scene.pipe, "unet"):
        raise OmniCacheError(f"DeepCache reuses the deep part of a U-Net, and {type(scene.pipe).__name__} has none.")


CONTENDER = Contender("DeepCache", "peer", _settings, _put, "DeepCache", neutral={"interval": 1, "branch": 0})
