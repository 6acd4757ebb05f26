"""Published methods as OmniCache has them, at several settings each, without any calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import omnicache
from omnicache import registry
from omnicache.measure.bench.setting import FIRST, settings_of
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene

VALUES = 3
"""Of each method's main knob."""


def _settings(scene: Scene) -> list[Setting]:
    names = [name for name in registry.METHODS if name not in FIRST]
    return [
        Setting({"method": one.method, "options": dict(one.options)}, one.label)
        for one in settings_of(names, VALUES)
        if one.method not in FIRST and not registry.get(one.method).calibrates(one.options)
    ]


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    omnicache.enable(scene.pipe, options["method"], **options["options"])
    return Worn(off=lambda: omnicache.disable(scene.pipe))


CONTENDER = Contender("omnicache, published methods", "ours", _settings, _put)
