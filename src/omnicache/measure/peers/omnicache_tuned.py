"""``omnicache.tune``: one plan for each goal, made with the tuning inputs alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import omnicache
from omnicache.errors import FAILURES, OmniCacheError, failed
from omnicache.kept.origin import digest
from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene
from omnicache.plan import Plan


def _settings(scene: Scene) -> list[Setting]:
    made = []
    about = {"folder": scene.spec.folder / "tune", "budget": scene.spec.budget, "progress": False, **scene.tuning.settings}
    for goal in scene.spec.goals:
        try:
            plan = omnicache.tune(scene.pipe, scene.inputs, psnr=goal, **about)
        except FAILURES as no:
            made.append(Setting({"goal": goal, "why": failed(no)}, f"tuned for {goal:g} dB"))
            continue
        name = f"plans/tuned-{goal:g}-{digest(plan.to_json())}.plan.json"  # of other steps or inputs another one
        plan.save(scene.spec.folder / name)
        label = f"tuned for {goal:g} dB: {plan.measured['tuned']['chosen']['label']}"
        made.append(Setting({"goal": goal, "plan": name}, label))
    return made


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    if "why" in options:
        raise OmniCacheError(options["why"])
    omnicache.enable(scene.pipe, Plan.load(scene.spec.folder / options["plan"]))
    return Worn(off=lambda: omnicache.disable(scene.pipe))


CONTENDER = Contender("omnicache, tuned", "ours", _settings, _put)
