"""Chooses between a kernel's plain form and its Triton twin.

A twin works where Triton does, on ordinary tensors of one CUDA device. It gives way to the reference, which can do all of this,

- inside ``torch.compile``, so that a graph stays whole and the compiler fuses plain torch by itself;
- where a gradient is to be recorded, and where a mode (a counter of operations, say) or a subclass of tensors wants to see what is
  done;
- for good, after one warning, where compiling or launching it fails.

``OMNICACHE_KERNELS``, read when omnicache is imported: ``reference`` never takes a twin, ``triton`` takes it for tensors on the
CPU, too, which needs ``TRITON_INTERPRET=1`` and is for tests.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

HOMES = {
    "weighted_sum": "triton_sums",
    "change_sums": "triton_sums",
    "take_rows": "triton_rows",
    "fill_rows": "triton_rows",
    "most_alike": "triton_match",
}
"""In which file each twin is. They import Triton, which is slow and may be missing, so they are loaded when first wanted."""

MODE = os.environ.get("OMNICACHE_KERNELS", "")
FORCED = MODE == "triton"
"""Whether twins are taken on the CPU."""
without: set[str] = set(HOMES) if MODE == "reference" else set()
"""The kernels whose twins are not taken, or no longer."""

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)


def attempt(name: str, tensors: Sequence[torch.Tensor], *given: Any) -> Any:
    """What the twin called ``name`` makes of ``given``, or None where the reference is to do it.

    Args:
        name: the kernel.
        tensors: all tensors that it reads or writes.
        *given: its arguments.
    """
    if torch.compiler.is_compiling() or name in without or _modes():
        return None
    device, recording = tensors[0].device, torch.is_grad_enabled()
    for t in tensors:
        if type(t) not in _PLAIN or t.device != device or (recording and t.requires_grad):
            return None
    try:
        with _on(device):
            return _twin(name)(*given)
    except torch.cuda.OutOfMemoryError:  # not the kernel's fault, and the session knows what to let go of
        raise
    except Exception as bad:
        if isinstance(bad, ModuleNotFoundError) and bad.name == "triton":  # torch for CUDA comes without it on some systems
            without.update(HOMES)
            return None
        without.add(name)
        warnings.warn(
            f"OmniCache's Triton kernel {name} does not work here ({type(bad).__name__}: {str(bad).strip()[:200]}). Plain torch "
            "does the same from now on, slower. OMNICACHE_KERNELS=reference chooses that from the start.",
            RuntimeWarning,
            stacklevel=3,
        )
    return None


@functools.cache
def _twin(name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"omnicache.kernels.{HOMES[name]}"), name)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be that of the tensors."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)
