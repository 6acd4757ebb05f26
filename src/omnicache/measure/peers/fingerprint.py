"""What a result depends on."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from typing import Any

import torch

from omnicache import zoo
from omnicache.kept.origin import digest, machine, sources
from omnicache.measure.peers.contender import Contender, Setting
from omnicache.measure.peers.scene import Spec
from omnicache.measure.peers.size import Size


def key_of(contender: Contender, setting: Setting | None, spec: Spec, size: Size) -> str:
    """A short word that is the same only where a setting's figures are: contender with its version, options, model and weights,
    what is drawn and how, the machine, and the sources. Without a setting: for all of a contender's."""
    options = {} if setting is None else dict(setting.options)
    plan = spec.folder / options["plan"] if "plan" in options else None
    about = {
        "contender": [contender.name, contender.version],
        "options": options,
        "plan": plan.read_text(encoding="utf-8") if plan is not None and plan.exists() else None,
        "scene": scene_key(spec, size),
    }
    return digest(about)


def scene_key(spec: Spec, size: Size) -> str:
    """The same for all contenders of one comparison."""
    about = {
        "model": [spec.model, _weights(spec.model)],
        "call": [spec.steps, spec.guidance, spec.threads, sorted(spec.goals)],
        "size": [size.tuning, size.samples, size.batch, size.first_pairs],
        "machine": [machine(torch.device("cpu")), torch.__version__, metadata.version("diffusers")],
        "sources": sources(),
    }
    return digest(about)


@cache
def _weights(model: str) -> str:
    files = sorted(zoo.path(model).rglob("*.safetensors")) + sorted(zoo.path(model).rglob("*config.json"))
    found: Any = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()
