"""Published methods as OmniCache has them, at several settings each, without any calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import omnicache
from omnicache import registry
from omnicache.measure.bench.setting import FIRST, settings_of
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene
from omnicache.tuning.ladders import OURS, calibrated

VALUES = 3
"""Of each method's main knob."""
NAMES = [name for name in registry.METHODS if name not in FIRST]


def _settings(scene: Scene) -> list[Setting]:
    return [
        Setting({"method": one.method, "options": dict(one.options)}, one.label)
        for one in settings_of(NAMES, VALUES)
        if one.method not in FIRST and not registry.get(one.method).calibrates(one.options)
    ]


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    omnicache.enable(scene.pipe, options["method"], **options["options"])
    return Worn(off=lambda: omnicache.disable(scene.pipe))


UNTRIED = f"Must be calibrated, and are not tried: {', '.join(calibrated(name for name in NAMES if name != OURS))}."
CONTENDER = Contender("omnicache, published methods", "ours", _settings, _put, untried=UNTRIED)
