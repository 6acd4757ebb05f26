"""The only place that touches a module's call.

torch's ``Module.__call__`` consults the instance attribute ``_compiled_call_impl`` first, and pickling and copying drop it.
Putting ours there leaves ``forward``, its signature, ``state_dict`` and classes alone, and what stood there (a regional
compile) is called in its turn. The attribute is private to torch: if a version lacks it, ``attach`` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from omnicache.errors import OmniCacheError

Call = Callable[..., Any]
Handler = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
SLOT = "_compiled_call_impl"


class Hook:
    """One handler on one module's call; ``remove`` restores what stood there before."""

    __slots__ = ("_before", "_entry", "_live", "module")

    def __init__(self, module: nn.Module, handler: Handler):
        if not hasattr(nn.Module, SLOT):
            raise OmniCacheError(f"This version of torch has no Module.{SLOT}; OmniCache supports torch 2.4 to 2.13.")
        self.module = module
        self._before = module.__dict__.get(SLOT)
        self._live = True
        call: Call = self._before if self._before is not None else module._call_impl

        def entry(*args: Any, **kwargs: Any) -> Any:
            return handler(call, args, kwargs) if self._live else call(*args, **kwargs)

        self._entry = entry
        setattr(module, SLOT, entry)

    @property
    def in_place(self) -> bool:
        """False after somebody compiled the module over the hook."""
        return self.module.__dict__.get(SLOT) is self._entry

    def remove(self) -> None:
        self._live = False  # a compile made over us may still call the entry: it now passes straight through
        if not self.in_place:
            return
        if self._before is None:
            del self.module.__dict__[SLOT]
        else:
            setattr(self.module, SLOT, self._before)
