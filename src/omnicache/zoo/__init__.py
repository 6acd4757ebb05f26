"""Small models that ship with the package, so that examples, tests and benchmarks need no download.

Each is a standard diffusers folder plus ``classifier/``, the judge of its samples; its README.md is the model card.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from omnicache.errors import OmniCacheError
from omnicache.zoo.classifier import Classifier

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

__all__ = ["classifier", "load", "names", "path"]

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Names of the models that :func:`load` knows."""
    return sorted(found.parent.name for found in _HERE.glob("*/model_index.json"))


def path(name: str) -> Path:
    """The model's folder inside the installed package."""
    known = names()
    if name in known:
        return _HERE / name
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}?" if near else "this installation has none."
    raise OmniCacheError(f"the zoo has no model {name!r}; {hint}")


def load(name: str, dtype: torch.dtype | None = None) -> DiffusionPipeline:
    """The model as a diffusers pipeline on the CPU, float32 unless ``dtype`` says otherwise, without progress bar."""
    folder = path(name)
    try:
        from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
        from diffusers.utils import logging
    except ImportError as missing:
        raise OmniCacheError('zoo models are diffusers pipelines; run: pip install "omnicache[diffusers]"') from missing
    import torch

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    # JSON has only strings as keys, and diffusers warns that they are not integers.
    extra = {"id2label": {int(k): v for k, v in index["id2label"].items()}} if "id2label" in index else {}
    chatty = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        pipe = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, low_cpu_mem_usage=False, **extra)
    finally:
        if chatty:
            logging.enable_progress_bar()
    if dtype not in (None, torch.float32):
        pipe.to(dtype)  # apart, because the argument of from_pretrained changed its name between diffusers' versions
    pipe.set_progress_bar_config(disable=True)
    return pipe


def classifier(name: str) -> Classifier:
    """The judge of the model's samples: logits and features of its pictures in [0, 1]."""
    return Classifier.load(path(name) / "classifier")
