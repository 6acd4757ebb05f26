"""What a user hands in: a diffusers pipeline, a bare denoiser, or any module with a list of blocks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from omnicache.errors import OmniCacheError, nearest

DENOISERS = ("transformer", "transformer_2", "unet", "prior", "decoder", "dit", "denoiser")


def denoisers(target: Any) -> list[nn.Module]:
    """The networks that are called once a step.

    Raises:
        OmniCacheError: ``target`` is neither a module nor a pipeline with one.
    """
    if isinstance(target, nn.Module):
        return [target]
    parts = getattr(target, "components", None)
    found = parts if isinstance(parts, Mapping) else {n: getattr(target, n, None) for n in DENOISERS}
    # A combined pipeline calls the parts of its prior "prior_prior", "prior_unet" and so on.
    modules = [
        m for n, m in found.items() if (n in DENOISERS or (n[6:] in DENOISERS and n[:6] == "prior_")) and isinstance(m, nn.Module)
    ]
    if not modules:
        raise OmniCacheError(
            f"{type(target).__name__} is neither a diffusers pipeline with a transformer or unet nor a torch module. "
            "Pass the pipeline, pipe.transformer, pipe.unet, or a module with a list of blocks."
        )
    return modules


def with_scheduler(target: Any) -> Any:
    """The target if it is more than a bare module: something with a scheduler."""
    return None if isinstance(target, nn.Module) or not hasattr(target, "scheduler") else target


def as_call(pipe: Any, given: Any, seed: int) -> dict[str, Any]:
    """Keyword arguments for ``pipe(...)`` from a dict, or from a string or number for its first argument.

    A generator seeded with ``seed`` is added where the pipeline takes one and none was given. Given ones are copied, so that
    every run of an input draws the same noise.
    """
    parameters = inspect.signature(pipe.__call__).parameters
    labels = getattr(pipe, "labels", None)
    if labels and isinstance(given, str):  # a pipeline that is asked for classes by number, and knows their names
        if given not in labels:
            raise OmniCacheError(f"The model has no class {given!r}.{nearest(given, labels)}")
        given = labels[given]
    if labels and not isinstance(given, (str, int, Mapping)):
        raise OmniCacheError(f"An input is a class by number or name, or a dict of arguments, not {given!r}.")
    if labels and isinstance(given, int) and given not in labels.values():
        raise OmniCacheError(
            f"The model has no class {given}; its classes go from {min(labels.values())} to {max(labels.values())}."
        )
    call: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {next(iter(parameters)): [given]}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and (unknown := [n for n in call if n not in parameters]):
        raise OmniCacheError(f"{type(pipe).__name__} takes no {unknown[0]!r}.{nearest(unknown[0], parameters)}")
    given_generator = call.get("generator")
    if isinstance(given_generator, torch.Generator):
        call["generator"] = given_generator.clone_state()
    elif isinstance(given_generator, (list, tuple)):
        call["generator"] = [g.clone_state() for g in given_generator]
    elif "generator" in parameters:
        call["generator"] = torch.Generator().manual_seed(seed)
    return call


def check_inputs(inputs: Any) -> list[Any]:
    """``inputs`` as a list.

    Raises:
        OmniCacheError: it is empty or a single string.
    """
    if isinstance(inputs, (str, bytes)) or not isinstance(inputs, Sequence) or not inputs:
        raise OmniCacheError('inputs must be a list with at least one entry, for example ["a red fox", "a lake"] or [3, 14, 15].')
    return list(inputs)


def split_call(pipe: Any, given: Mapping[str, Any], own: set[str], whose: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort keyword arguments into our own options, of ``whose`` ("fora", "this calibration"), and arguments of the pipeline's call.

    Raises:
        OmniCacheError: one is neither.
    """
    parameters = inspect.signature(pipe.__call__).parameters
    ours = {k: v for k, v in given.items() if k in own}
    theirs = {k: v for k, v in given.items() if k not in own and k in parameters}
    for name in given:
        if name not in ours and name not in theirs:
            raise OmniCacheError(
                f"{name!r} is neither an option of {whose} nor an argument of {type(pipe).__name__}."
                f"{nearest(name, [*own, *parameters])}"
            )
    return ours, theirs
