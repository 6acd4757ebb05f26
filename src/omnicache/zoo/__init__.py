"""Small trained models, so that examples, tests and benchmarks need no download.

One, ``emoji``, ships with the package; the others lie in ``zoo/`` of the repository and are found when OmniCache runs from a
clone, or in the folders that the environment variable ``OMNICACHE_ZOO`` names. Each is a standard diffusers folder; its
README.md is the model card, and its samples have a judge, which :func:`classifier` returns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnicache.errors import ALIKE, OmniCacheError
from omnicache.zoo.classifier import Classifier

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

__all__ = ["IN_THE_CLONE", "call", "classifier", "frames", "inputs", "labels", "load", "names", "path"]

_HERE = Path(__file__).parent
_CLONE = _HERE.parents[2] / "zoo"
IN_THE_CLONE = ("emoji-animate", "emoji-motion", "emoji-text", "emoji-unet")
"""Models of the repository that the installed package does not hold."""


def _found() -> dict[str, Path]:
    """Folder of each model: the package before the clone, and that before ``OMNICACHE_ZOO``."""
    further = [Path(folder) for folder in os.environ.get("OMNICACHE_ZOO", "").split(os.pathsep) if folder]
    found: dict[str, Path] = {}
    for place in (_HERE, _CLONE, *further):
        for index in sorted(place.glob("*/model_index.json")):
            found.setdefault(index.parent.name, index.parent)
    return found


def names() -> list[str]:
    """Names of the models that :func:`load` knows."""
    return sorted(_found())


def path(name: str) -> Path:
    """The model's folder.

    Raises:
        OmniCacheError: there is none; the message says how to get it.
    """
    known = _found()
    if name in known:
        return known[name]
    if name in IN_THE_CLONE:
        raise OmniCacheError(
            f"the model {name!r} is in the folder zoo/ of OmniCache's repository and not in the installed package; clone the "
            f"repository and run from there, or set OMNICACHE_ZOO to the zoo/ of a clone."
        )
    if near := get_close_matches(name, [*known, *IN_THE_CLONE], n=1, cutoff=ALIKE):
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"it has {', '.join(known)}." if known else "this installation has none."
    raise OmniCacheError(f"the zoo has no model {name!r}; {hint}")


def load(name: str, dtype: torch.dtype | None = None) -> DiffusionPipeline:
    """The model as a diffusers pipeline on the CPU, float32 unless ``dtype`` says otherwise, without progress bar."""
    folder = path(name)
    try:
        from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
    except ImportError as missing:
        raise OmniCacheError('zoo models are diffusers pipelines; run: pip install "omnicache[diffusers]"') from missing
    import torch

    index = _index(folder)
    # JSON has only strings as keys, and diffusers warns that they are not integers.
    extra = {"id2label": {int(k): v for k, v in index["id2label"].items()}} if "id2label" in index else {}
    with _quiet():
        pipe = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, low_cpu_mem_usage=False, **extra)
    if dtype not in (None, torch.float32):
        pipe.to(dtype)  # apart, because the argument of from_pretrained changed its name between diffusers' versions
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and remarks of diffusers and transformers, which are as they were afterwards."""
    from diffusers.utils import logging

    libraries: list[Any] = [logging]
    with suppress(ImportError):
        from transformers.utils import logging as other

        libraries.append(other)
    before = [(library, library.is_progress_bar_enabled(), library.get_verbosity()) for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, bar, verbosity in before:
            library.set_verbosity(verbosity)
            if bar:
                library.enable_progress_bar()


def call(name: str) -> dict[str, Any]:
    """Arguments that suit the model, for ``pipe(**zoo.call(name))``: what its card draws, its size and its guidance."""
    folder = path(name)
    return _opened(folder, _about(folder).get("call", {}))


def inputs(name: str) -> dict[str, dict[str, Any]]:
    """For each of :func:`labels`, the arguments that ask for it, in place of those of :func:`call`: a class, a prompt, or a first
    frame and how it moves."""
    folder = path(name)
    given = _about(folder).get("inputs")
    if given is not None:
        return {label: _opened(folder, one) for label, one in given.items()}
    by_class = "id2label" in _index(folder)
    return {label: {"class_labels": [i]} if by_class else {"prompt": label} for label, i in labels(name).items()}


def labels(name: str) -> dict[str, int]:
    """What the model can be asked for, class names or prompts, and the class that its judge should then see."""
    folder = path(name)
    by_class = {label: int(i) for i, label in _index(folder).get("id2label", {}).items()}
    return _about(folder).get("labels", by_class)


def frames(name: str) -> int:
    """Frames of a clip that the model draws; 1 where it draws pictures."""
    return _about(path(name)).get("frames", 1)


def classifier(name: str) -> Classifier:
    """The judge of the model's samples: logits and features of its pictures in [0, 1]."""
    owner = _about(path(name)).get("classifier", name)
    return Classifier.load(path(owner) / "classifier")


def _index(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model_index.json").read_text(encoding="utf-8"))


def _about(folder: Path) -> dict[str, Any]:
    """What diffusers' own files do not say: arguments that suit the model, whose classifier judges it, its prompts and frames."""
    about = folder / "zoo.json"
    return json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}


def _opened(folder: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call from JSON, where an image is the name of a file."""
    found = dict(arguments)
    if "image" in found:
        from PIL import Image

        found["image"] = Image.open(folder / found["image"]).convert("RGB")
    return found
