"""The clock that everything is timed by, and how people are told of its seconds."""

from __future__ import annotations

import time

import torch


def now() -> float:
    """Seconds, after an accelerator, if there is one, has done all that it was given.

    Wherever weights lie at the moment: offloaded ones are on the host between calls, and the work is not.
    """
    accelerator = getattr(torch, "accelerator", None)  # since torch 2.6
    if accelerator is not None and accelerator.is_available():
        accelerator.synchronize()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def human_seconds(seconds: float) -> str:
    """``0.0123`` as ``"12 ms"``: in milliseconds below a second."""
    ms = 1e3 * seconds
    if ms >= 999.5:
        return f"{seconds:.2f} s"
    return f"{ms:.0f} ms" if ms >= 9.95 else f"{ms:.1f} ms" if ms >= 0.95 else f"{ms:.2f} ms"
