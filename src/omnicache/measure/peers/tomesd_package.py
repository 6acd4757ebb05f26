"""The tomesd package: merges tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene

RATIOS = (0.1, 0.25, 0.4, 0.5, 0.75)


def _settings(scene: Scene) -> list[Setting]:
    _check(scene)
    made = []
    for ratio in RATIOS:
        for down in (1, 2):
            for everywhere in (False, True):
                label = f"ratio {ratio:g}, layers down to 1/{down}, {'attention and MLP' if everywhere else 'attention'}"
                made.append(Setting({"ratio": ratio, "max_downsample": down, "everywhere": everywhere}, label))
    return made


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    import tomesd

    _check(scene)
    more = options["everywhere"]
    tomesd.apply_patch(
        scene.denoiser,
        ratio=options["ratio"],
        max_downsample=options["max_downsample"],
        merge_crossattn=more,
        merge_mlp=more,
    )

    def off() -> None:
        tomesd.remove_patch(scene.denoiser)

    return Worn(off=off)


def _check(scene: Scene) -> None:
    if not any(type(part).__name__ == "BasicTransformerBlock" for part in scene.denoiser.modules()):
        raise OmniCacheError(
            f"tomesd patches blocks of the class BasicTransformerBlock, and {type(scene.denoiser).__name__} has none of them."
        )


CONTENDER = Contender("tomesd", "peer", _settings, _put, "tomesd", neutral={"ratio": 0.0, "max_downsample": 2, "everywhere": False})
