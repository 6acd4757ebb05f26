"""What the commands share: consoles, loading a pipeline, reading options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import omnicache
from omnicache import registry, zoo
from omnicache.errors import OmniCacheError

err = Console(stderr=True, highlight=False)
"""For progress and people; stdout carries results only."""


def print_json(result: Any) -> None:
    """One JSON object on stdout, and nothing else."""
    print(json.dumps(result, allow_nan=False))


def usual(pipe: str) -> dict[str, Any]:
    """Arguments that suit a model of the zoo; nothing for any other pipeline."""
    return zoo.call(pipe) if pipe in zoo.names() else {}


def load(pipe: str) -> Any:
    """A pipeline: the name of a model of the zoo, or a diffusers folder.

    Raises:
        OmniCacheError: it is neither.
    """
    if pipe in zoo.names() or pipe in zoo.IN_THE_CLONE:
        return zoo.load(pipe)
    if not (Path(pipe) / "model_index.json").exists():
        raise OmniCacheError(
            f"{pipe!r} is neither a model of the zoo ({', '.join(zoo.names()) or 'none'}) "
            "nor a diffusers folder with a model_index.json."
        )
    try:
        from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
    except ImportError as missing:
        raise OmniCacheError('Pipelines need diffusers; run: pip install "omnicache[diffusers]"') from missing
    try:
        loaded = DiffusionPipeline.from_pretrained(pipe, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as broken:
        raise OmniCacheError(f"{pipe!r} could not be loaded by diffusers: {type(broken).__name__}: {broken}") from broken
    loaded.set_progress_bar_config(disable=True)
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu")


def read_options(given: list[str]) -> dict[str, Any]:
    """``["interval=5", "redo=true"]`` as a dict; values are JSON where they can be, else words.

    Raises:
        OmniCacheError: an entry has no ``=``.
    """
    options: dict[str, Any] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals:
            raise OmniCacheError(f"An option is written name=value, for example -o interval=5; not {entry!r}.")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


def chosen(methods: str) -> list[str]:
    """The names in an option ``--methods``.

    Raises:
        OmniCacheError: there is no method of such a name.
    """
    if methods == "all":
        return list(omnicache.methods())
    return [registry.get(name.strip()).name for name in methods.split(",") if name.strip()]
