from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

LONGEST = 40


def described(scheduler: Any) -> str:
    """A scheduler in words: its class, and the settings that are not its class's own, ``"DDIMScheduler(clip_sample=False)"``.

    Two schedulers of the same words take the same steps; those that hold no settings are told by their class alone.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        return name
    usual = {p.name: p.default for p in inspect.signature(type(scheduler).__init__).parameters.values()}
    own = {k: v for k, v in config.items() if not k.startswith("_") and k in usual and not _same(v, usual[k])}
    return f"{name}({', '.join(f'{k}={str(own[k])[:LONGEST]}' for k in sorted(own))})"


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (ValueError, RuntimeError):  # arrays
        return str(a) == str(b)
