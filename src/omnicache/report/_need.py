"""The optional packages the reports are drawn with."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from omnicache.errors import OmniCacheError


def need(module: str) -> Any:
    """Import a module of the ``report`` extra, or say how to get it."""
    try:
        return import_module(module)
    except ImportError as missing:
        name = module.partition(".")[0]
        raise OmniCacheError(f'this report is drawn with {name}; run: pip install "omnicache[report]"') from missing
