"""The only place that touches a module's call.

torch's ``Module.__call__`` consults the instance attribute ``_compiled_call_impl`` first, and pickling and copying drop it.
Putting ours there leaves ``forward``, its signature, ``state_dict`` and classes alone, and what stood there (a regional
compile) is called in its turn. The attribute is private to torch: if a version lacks it, ``attach`` says so.

A compiler that traces a hooked module from outside finds ``_uncompiled``, which it may not enter: the module runs as if nothing
had been compiled around it, cached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from omnicache.errors import OmniCacheError

standing_in: ContextVar[Mapping[nn.Module, Callable[..., Any]] | None] = ContextVar("omnicache_standing_in", default=None)
"""Modules that are called for nothing at the moment, and what answers in their place: ``(args, kwargs)``. Nearly every call of a
reused step is one of those, so they are told before anything else is asked."""

Plain = Callable[..., Any]
Handler = Callable[[Plain, tuple[Any, ...], dict[str, Any]], Any]
SLOT = "_compiled_call_impl"


class Hook:
    """One handler on one module's call; ``remove`` restores what stood there before.

    Attributes:
        module: the module.
        shut_out: whether a compiler has been around the module, and was kept out.
    """

    __slots__ = ("_before", "_entry", "_handler", "_live", "module", "shut_out")

    def __init__(self, module: nn.Module, handler: Handler):
        if not hasattr(nn.Module, SLOT):
            raise OmniCacheError(f"This version of torch has no Module.{SLOT}; OmniCache supports torch 2.4 to 2.13.")
        self.module, self._handler, self.shut_out = module, handler, False
        self._before = module.__dict__.get(SLOT)
        self._live = True
        call: Plain = self._before if self._before is not None else module._call_impl

        def entry(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_dynamo_compiling():
                return _uncompiled(entry, args, kwargs)
            if (table := standing_in.get()) is not None and (instead := table.get(module)) is not None:
                return instead(args, kwargs)
            return handler(call, args, kwargs) if self._live else call(*args, **kwargs)

        entry.hook = self  # type: ignore[attr-defined]
        self._entry = entry
        setattr(module, SLOT, entry)

    @property
    def in_place(self) -> bool:
        """False after somebody compiled the module: calls do not come by here any more. Hooks over this one call it in turn."""
        found = self.module.__dict__.get(SLOT)
        while found is not self._entry and isinstance(over := getattr(found, "hook", None), Hook):
            found = over._before
        return found is self._entry

    def beneath(self, *args: Any, **kwargs: Any) -> Any:
        """The call as this hook sees it, without the hooks that were put over it later."""
        return self._entry(*args, **kwargs)

    def again(self) -> Hook:
        """The same handler anew, around what stands there now."""
        self._live = False
        return Hook(self.module, self._handler)

    def remove(self) -> None:
        self._live = False  # a compile made over us may still call the entry: it now passes straight through
        if self.module.__dict__.get(SLOT) is not self._entry:
            return
        if self._before is None:
            del self.module.__dict__[SLOT]
        else:
            setattr(self.module, SLOT, self._before)


def _uncompiled(entry: Plain, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call, with the compiler off for all that it calls, except for what has a compiled call of its own."""
    entry.hook.shut_out = True  # type: ignore[attr-defined]
    return torch.compiler.disable(entry)(*args, **kwargs)


# What ``torch.compiler.disable`` would set, without importing the compiler for those who never use it.
_uncompiled._torchdynamo_disable = True  # type: ignore[attr-defined]
_uncompiled._torchdynamo_disable_msg = (  # type: ignore[attr-defined]
    "OmniCache was enabled on this module, and its hooks cannot be part of a graph. Compile the model's blocks instead: "
    "for block in model.transformer_blocks: block.compile()"
)


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module.compile()`` or ``torch.compile(module)`` made one graph of it, hooked or not."""
    found = module.__dict__.get(SLOT)
    while isinstance(hook := getattr(found, "hook", None), Hook):
        found = hook._before
    return hasattr(module, "_orig_mod") or found is not None
