"""The clock that everything is timed by."""

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
