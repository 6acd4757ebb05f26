"""What the commands share: consoles, loading a pipeline, reading options."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

import omnicache
from omnicache import registry, zoo
from omnicache.errors import OmniCacheError

err = Console(stderr=True, highlight=False)
"""For progress and people; stdout carries results only."""


def say(sentence: str) -> None:
    """One line for people, however long."""
    err.print(sentence, soft_wrap=True, markup=False)


@contextmanager
def plain_warnings(tell: Callable[[str], None]) -> Iterator[None]:
    """OmniCache's warnings are told as plain sentences; those of others are shown as ever."""
    with warnings.catch_warnings():
        other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            tell(str(message)) if str(message).startswith("OmniCache") else other(message, category, *where)

        warnings.showwarning = show
        yield


def say_rest(warned: list[str], told: str) -> None:
    """Say those warnings whose sentence is not told anyway, and forget them all."""
    for warning in warned:
        if warning.partition("): ")[2] not in told:
            say(warning)
    warned.clear()


def table_of(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], widest: Mapping[str, int] = MappingProxyType({})
) -> Table:
    """A table that breaks lines between words, however narrow the console; a column that is told how wide it may be, anywhere."""
    cells = [[column, *(row[i] for row in rows)] for i, column in enumerate(columns)]
    most = [min(max(map(len, cell)), widest.get(cell[0], console.width)) for cell in cells]
    widths = [min(max(len(word) for text in cell for word in text.split()), n) for cell, n in zip(cells, most, strict=True)]
    gap = 2 if sum(widths) + 2 * (len(columns) - 1) <= console.width else 1
    for _ in range(console.width - sum(widths) - gap * (len(columns) - 1)):  # to the column that is shortest of room
        needs = max(range(len(columns)), key=lambda i: most[i] / widths[i])
        widths[needs] += most[needs] > widths[needs]
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


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
