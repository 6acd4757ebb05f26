from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.models.map import ModelMap, Site
from omnicache.plan import Plan
from omnicache.runtime.clock import Tap
from omnicache.runtime.executors import Role
from omnicache.runtime.hook import Handler, Hook, is_compiled
from omnicache.runtime.roles import Roles, around
from omnicache.runtime.run import branch_name

SETTINGS = ("_attention_backend", "_parallel_config")
"""What ``set_attention_backend`` and ``enable_parallelism`` of diffusers write into attention processors."""


class Attachment:
    """The hooks of a session, and what keeps them from being called.

    Args:
        model: what was found in the denoiser.
        plan: what to do.

    Attributes:
        root_roles: the roles on the denoiser itself, which has a handler of its own.
        guidance: the policy between the branches of guidance, and its site; None if there is none.
        barred: sites that must run at every step.
        absent: what the model does not have and the plan does without, as sentences.

    Raises:
        OmniCacheError: the model has nothing that the plan needs.
    """

    def __init__(self, model: ModelMap, plan: Plan):
        self._model, self._method = model.model, plan.method
        self._roles = Roles(plan, model)
        self._governed, self.guidance = self._roles.governed, self._roles.guidance
        self.absent = tuple(self._roles.absent)
        self.root_roles = self._roles.pop(model.model, ())
        self._around = around(model.model, self._roles)
        self._context: Tap | None = None
        self._hooks: list[Hook] = []
        self.barred: set[Site] = set()
        self._keeping: set[nn.Module] = set()

    def attach(self, denoise: Handler, visit: Callable[[tuple[Role, ...]], Handler]) -> None:
        """Put the hooks in place. From the first one on they may be called, by other threads.

        Args:
            denoise: handles every call of the denoiser.
            visit: makes the handler of a module from the roles on it.

        Raises:
            OmniCacheError: some of the modules cannot be reached.
        """
        self._tap_contexts()
        self._hooks.append(Hook(self._model, denoise))
        for module, ordered in self._roles.items():
            self._hooks.append(Hook(module, visit(ordered)))
        if why := self._unseen():
            raise OmniCacheError(why)

    def _tap_contexts(self) -> None:
        """Read the names that pipelines give their calls (``cache_context("cond")``), where they do."""
        if not hasattr(type(self._model), "cache_context"):
            return

        @contextlib.contextmanager
        def named(plain: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            token = branch_name.set(str(name))
            try:
                with plain(name, *args, **kwargs):
                    yield
            finally:
                branch_name.reset(token)

        self._model.cache_context = self._context = Tap(self._model, "cache_context", named)  # type: ignore[assignment]

    def remove(self) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        self._hooks.clear()
        if self._context is not None:
            self._context.remove()

    def look(self) -> Iterator[str]:
        """Before every run: put back what a compile has displaced, and say what cannot be reached or must run."""
        # Blocks that were compiled after ``enable`` have lost their hook: put it around the compiled call.
        self._hooks = [hook if hook.in_place else hook.again() for hook in self._hooks]
        if why := self._unseen():
            yield why
        inside = set(self._model.modules())
        if lost := sum(hook.module not in inside for hook in self._hooks):
            yield (
                f"{lost} of {len(self._hooks) - 1} modules that it governs were replaced after it was enabled, and are computed at "
                "every step. Call omnicache.disable(pipe), and enable it again."
            )
        if hook := next((h for h in self._hooks if h.shut_out), None):
            yield (
                f"{type(hook.module).__name__} was compiled by torch.compile(...) after it was enabled, and runs uncompiled, "
                "because a graph cannot hold hooks. Compile blocks instead: for block in model.transformer_blocks: block.compile()."
            )
        yield from self._bar()

    def _bar(self) -> Iterator[str]:
        """Sites with an attention processor that keeps things for the pipeline (attention maps, say) must run at every step."""
        keeping = {m for m in self._model.modules() if _keeps(getattr(m, "processor", None))}
        if keeping == self._keeping:
            return
        self._keeping = keeping
        self.barred = {s for s in self._governed if any(keeping.intersection(m.modules()) for m in s.modules)}
        if self.barred:
            kinds = ", ".join(sorted({type(m.processor).__name__ for m in keeping}))
            yield f"{len(self.barred)} sites are always computed: their {kinds} keeps things that the pipeline reads."

    def _unseen(self) -> str | None:
        """Why governed modules cannot be reached, as a sentence: what lies inside a compiled module is part of its graph."""
        outer = next((name for name, module in self._around if is_compiled(module)), None)
        if outer is None:
            return None
        return (
            f"{self._method} caches inside {outer}, which is compiled, and hooks inside a compiled graph do not run. "
            'Cache whole blocks, which can be compiled (granularity="stack" where the method has it), or do not compile them.'
        )

    def bypassed(self) -> str | None:
        """Why calls of the denoiser itself are not seen any more, as a sentence."""
        if not self._hooks or self._hooks[0].in_place:
            return None
        return (
            f"Nothing was reused: {type(self._model).__name__} was compiled as a whole after it was enabled, so its calls "
            "cannot be seen. Compile its blocks instead: for block in model.transformer_blocks: block.compile()."
        )


def _keeps(processor: Any) -> bool:
    """Whether an attention processor holds an object of its own making, which its calls may fill."""
    plain = (nn.Module, torch.Tensor, type, torch.dtype, torch.device, types.FunctionType, types.MethodType, functools.partial)
    held = getattr(processor, "__dict__", {}) if not isinstance(processor, nn.Module) else {}
    return any(hasattr(v, "__dict__") and not isinstance(v, plain) and n not in SETTINGS for n, v in held.items())
