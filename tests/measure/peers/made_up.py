"""A contender for tests of the comparison, in the clear and in every kind of trouble."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.scene import Scene


def _settings(scene: Scene) -> list[Setting]:
    tuned = [Setting({"do": "fewer", "steps": scene.steps - 1, "goal": goal}, f"made for {goal:g} dB") for goal in scene.spec.goals]
    return [*tuned, *(Setting({"do": what}, what) for what in ("nothing", "raise", "noise"))]


def _put(scene: Scene, options: Mapping[str, Any]) -> Worn:
    what = options["do"]
    if what == "raise":
        raise KeyError("no such block")
    if what == "wait":
        time.sleep(60)
    if what == "die":
        os._exit(3)
    if what == "noise":
        print("noise on stdout")
        print("noise on stderr", file=sys.stderr)
        scene.denoiser.register_forward_hook(_broken)
    if what == "class":
        type(scene.pipe).patched = True  # what a peer does to a class
    return Worn(call={"num_inference_steps": options["steps"]} if what == "fewer" else {})


def _broken(module: torch.nn.Module, args: Any, out: Any) -> None:
    out[0].fill_(float("nan"))


CONTENDER = Contender("made up", "ours", _settings, _put)
