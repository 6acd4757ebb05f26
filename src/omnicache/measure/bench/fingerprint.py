"""What a result depends on."""

from __future__ import annotations

import hashlib
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

import omnicache
from omnicache import registry
from omnicache.fingerprint import fingerprint as class_and_size
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.bench.setting import Setting
from omnicache.measure.bench.size import Size
from omnicache.measure.comparison import environment
from omnicache.measure.task import Task

OUTSIDE = ("cli", "methods", "report", "zoo")
"""Folders of the package that change no figure, or, of methods, only their own."""


def key_of(setting: Setting, task: Task, size: Size) -> str:
    """A short word that is the same only where a setting's figures are: method and options, model and weights, what is drawn and
    how, the machine, and the sources."""
    model = denoisers(task.pipe)[0]
    device = next(model.parameters()).device
    about = {
        "method": setting.method,
        "options": setting.options,
        "model": task.name,
        "weights": [class_and_size(model), float(sum(p.detach().double().sum() for p in model.parameters()))],
        "call": {k: str(v) for k, v in task.settings.items()},
        "size": [size.first, size.batch, size.calibration],
        "machine": [environment(device)["device"], torch.__version__],
        "sources": [sources(), _method(setting.method)],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def sources() -> str:
    """Of the code that figures come from."""
    root = Path(omnicache.__file__).parent
    files = [p for p in sorted(root.rglob("*.py")) if p.relative_to(root).parts[0] not in OUTSIDE]
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def _method(name: str) -> str:
    made: Any = inspect.unwrap(registry.get(name).build)
    source = inspect.getsourcefile(made)
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source and Path(source).exists() else ""
