"""What a denoiser's arguments tell: the time, and the condition that marks a guidance branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

TIMES = ("timestep", "timesteps", "t", "sigma", "sigmas", "time", "noise_labels")
CONDITIONS = ("encoder_hidden_states", "class_labels", "context", "prompt_embeds", "y")


def condition_of(bound: Mapping[str, Any]) -> torch.Tensor | None:
    return next((v for n in CONDITIONS if isinstance(v := bound.get(n), torch.Tensor)), None)


def _largest(numbers: Any) -> float:
    return max(map(_largest, numbers)) if isinstance(numbers, list) else float(numbers)


def time_of(bound: Mapping[str, Any], on_host: bool = False) -> float | None:
    """The timestep among a denoiser's arguments, as a number (the largest, where frames or tokens have their own).

    With ``on_host``, None if reading it would wait for a device.
    """
    others = (n for n in bound if n not in TIMES and "timestep" in n and not n.startswith("num"))
    for name in (*TIMES, *others):
        when = bound.get(name)
        if isinstance(when, torch.Tensor) and when.numel():
            if on_host and when.device.type != "cpu":
                return None
            return _largest(when.tolist())  # not on the device, which may have no room for the answer
        if isinstance(when, (int, float)):
            return float(when)
    return None
