"""What a result depends on."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from omnicache import registry
from omnicache.kept.origin import digest, sources, surroundings
from omnicache.measure.bench.setting import Setting
from omnicache.measure.bench.size import Size
from omnicache.measure.task import Task


def key_of(setting: Setting, task: Task, size: Size) -> str:
    """A short word that is the same only where a setting's figures are: method and options, model and weights, what is drawn and
    how, the machine, and the sources."""
    about = {
        "method": setting.method,
        "options": setting.options,
        "model": task.name,
        "origin": surroundings(task.pipe),
        "call": task.settings,
        "inputs": [[one.label, one.seed] for one in task.inputs],
        "size": [size.first, size.batch, size.calibration],
        "sources": [sources(frozenset({"methods"})), _method(setting.method)],  # a method changes its own figures only
    }
    return digest(about)


def _method(name: str) -> str:
    made: Any = inspect.unwrap(registry.get(name).build)
    source = inspect.getsourcefile(made)
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source and Path(source).exists() else ""
