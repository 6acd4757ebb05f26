"""Inputs that are drawn in one call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from omnicache.integrations.pipelines import as_call

PLAIN = (bool, int, float, str, list, tuple, type(None))


def batches(pipe: Any, inputs: Sequence[Any], call: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """Arguments of the calls that draw all inputs, up to ``size`` of them in one call, where they can be put together: prompts,
    classes and seeds can, for diffusers' pipelines. Each input draws the noise that it draws alone."""
    calls = [{**call, **as_call(pipe, given, seed=i)} for i, given in enumerate(inputs)]
    if not hasattr(pipe, "components"):
        size = 1
    subjects = {"generator", next(iter(inspect.signature(pipe.__call__).parameters), "")}
    made: list[dict[str, Any]] = []
    held = 0
    for one in calls:
        both = _joined(made[-1], one, subjects) if made and held < size else None
        if both is None:
            made.append(one)
            held = 1
        else:
            made[-1] = both
            held += 1
    return made


def _joined(a: Mapping[str, Any], b: Mapping[str, Any], subjects: set[str]) -> dict[str, Any] | None:
    """Both in one call; None where that is not possible."""
    if a.keys() != b.keys():
        return None
    made: dict[str, Any] = {}
    for name, first in a.items():
        second = b[name]
        if (name in subjects or "prompt" in name) and all(isinstance(x, (list, str, torch.Generator)) for x in (first, second)):
            made[name] = [*_list(first), *_list(second)]
        elif type(first) is type(second) and isinstance(first, PLAIN) and first == second:
            made[name] = first
        else:
            return None
    return made


def _list(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [part]
