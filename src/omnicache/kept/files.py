"""Files that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def whole(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """What ``write`` puts at the path that it is given, at ``path``. Another process sees what was there before, or all of this."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    write(partial)
    os.replace(partial, path)
    return path


def kept(path: str | Path, make: Callable[[], Any]) -> Any:
    """The tensors and numbers in a file of torch's; if there is none, they are made and kept in it."""
    path = Path(path)
    if not path.exists():
        made = make()
        whole(path, lambda partial: torch.save(made, partial))
    return torch.load(path, weights_only=True)
