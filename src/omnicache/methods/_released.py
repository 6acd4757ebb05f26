"""What was released for particular models, by name: coefficients and thresholds, in ``data/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def released(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Options of a method for each model that they were released for; ``"class"`` tells the denoiser, as presets do. Models that
    cannot be told from another have none, and are asked for by name."""
    return json.loads((Path(__file__).parent / "data" / f"{method}.json").read_text())


def presets(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """``model=`` for the denoisers that can be told by class, number of blocks and configuration."""
    return {options["class"]: {"model": name} for name, options in table.items() if "class" in options}


def settled(plain: Mapping[str, Any], fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, else what was released for a model, else the plain defaults. None asks for nothing."""
    listed = {name: tuple(given) if isinstance(given, list) else given for name, given in fitted.items() if name != "class"}
    return {**plain, **listed, **{name: given for name, given in asked.items() if given is not None}}
