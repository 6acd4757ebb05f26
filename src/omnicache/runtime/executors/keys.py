from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from omnicache.models.joint import text_keys
from omnicache.policy import Columns, Tensors
from omnicache.runtime.executors.base import Cell, Proceed
from omnicache.runtime.executors.columns import ByColumns, Unlike, wide
from omnicache.runtime.executors.inside import Inside
from omnicache.runtime.streams import Args

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass

AT_ONCE = 2**24
"""Attention probabilities computed at once: 64 MiB of them."""


class KeyWise(ByColumns):
    """An attention of which each group of queries looks at some keys only (Chipmunk).

    Kept is what all keys made of the dense step's queries beyond what the chosen ones did. Added to what those make of the present
    queries, it is the output before the last projection. Projections and norms are the module's own and run at every step.
    """

    def all(self, p: Pass, cell: Cell, turn: Any, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        calls: list[tuple[Attend, torch.Tensor]] = []

        def look(attend: Callable[..., torch.Tensor], given: Args, named: Mapping[str, Any]) -> torch.Tensor:
            out = attend(*given, **named)
            calls.append((Attend(*given, **named), out))
            return out

        with Inside(functional.scaled_dot_product_attention, look):
            out = proceed(args, kwargs)
        if not calls or not all(call.plain for call, _ in calls):
            self.whole(p, "it attends in a way of its own" if calls else "how it attends is not to be seen")
            return out
        with torch.no_grad():
            outs = tuple(o.to(wide(o)) for _, o in calls)
            if p.run.keeper.wants(cell, p.step):
                rest = []
                for i, ((call, _), o) in enumerate(zip(calls, outs, strict=True)):
                    fixed = text_keys(self.module, self.signature.bind(args, kwargs), call.value)
                    chosen = p.pick(self.policy, self.site, self._columns((turn, i), call, True, fixed))
                    if chosen is None:
                        return out
                    rest.append(o - call.to_some(functional.scaled_dot_product_attention, chosen, self.group).to(o.dtype))
                outs = tuple(rest)
            cell.learn(p, (), outs)
        return out

    def some(self, p: Pass, cell: Cell, turn: Any, kept: Tensors, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        done = 0

        def attend(plain: Callable[..., torch.Tensor], given: Args, named: Mapping[str, Any]) -> torch.Tensor:
            nonlocal done
            call = Attend(*given, **named)
            if done >= len(kept) or not call.plain or kept[done].shape != call.shape:
                raise Unlike
            chosen = p.pick(self.policy, self.site, self._columns((turn, done), call, False))
            if chosen is None or int(chosen.shape[-1]) > call.key.shape[2]:
                raise Unlike
            done += 1
            some = call.to_some(plain, chosen, self.group)
            return (kept[done - 1] + some.to(wide(some))).to(some.dtype)

        with Inside(functional.scaled_dot_product_attention, attend):
            out = proceed(args, kwargs)
        if done != len(kept):
            raise Unlike
        return out

    def _columns(self, place: Any, call: Attend, dense: bool, fixed: torch.Tensor | None = None) -> Columns:
        return Columns(place, call.key.shape[2], dense, functools.partial(call.received, self.group), fixed)


@dataclass(frozen=True, eq=False)
class Attend:
    """One call of attention: ``(batch, heads, queries or keys, width)``."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_mask: torch.Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def plain(self) -> bool:
        return self.query.ndim == 4 and self.query.shape[:2] == self.key.shape[:2] and not (self.is_causal or self.dropout_p)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.query.shape[:3], self.value.shape[-1]))

    def _masks(self, size: int) -> tuple[torch.Tensor | None, ...]:
        """The mask for each ``size`` queries, ``(batch, heads, size, keys)``."""
        if self.attn_mask is None:
            return (None,) * -(-self.query.shape[2] // size)
        return self.attn_mask.expand(*self.query.shape[:3], self.key.shape[2]).split(size, dim=2)

    def received(self, group: int) -> torch.Tensor:
        """How much each key receives from each group of queries, ``(batch, heads, groups, keys)`` in float32."""
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else self.scale
        size = max(1, min(group, AT_ONCE // max(1, self.key.shape[2] * self.query.shape[:2].numel())))
        made = []
        for queries, masks in zip(self.query.split(group, dim=2), self._masks(group), strict=True):
            total = torch.zeros(*self.key.shape[:3], device=self.key.device)
            parts = queries.split(size, dim=2)
            for q, mask in zip(parts, masks.split(size, dim=2) if masks is not None else [None] * len(parts), strict=True):
                score = q @ self.key.mT * scale
                if mask is not None:
                    score = score.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else score + mask
                total += torch.softmax(score, dim=-1, dtype=torch.float32).nan_to_num().sum(2)
            made.append(total)
        return torch.stack(made, dim=2)

    def to_some(self, attend: Callable[..., torch.Tensor], chosen: torch.Tensor, group: int) -> torch.Tensor:
        """Attention of each group of queries to its keys alone, ``chosen`` ``(batch, heads, groups, kept)``.

        Queries that may look at none of them give 0.
        """
        made = []
        for i, (q, mask) in enumerate(zip(self.query.split(group, dim=2), self._masks(group), strict=True)):
            at = chosen[:, :, i]
            k, v = (t.gather(2, at[..., None].expand(*at.shape, t.shape[-1])) for t in (self.key, self.value))
            seen = None if mask is None else mask.gather(3, at[:, :, None].expand(*q.shape[:3], at.shape[-1]))
            out = attend(q, k, v, attn_mask=seen, scale=self.scale)
            if seen is not None:
                none = ~seen.any(-1, keepdim=True) if seen.dtype is torch.bool else seen.isneginf().all(-1, keepdim=True)
                out = out.masked_fill(none, 0.0)
            made.append(out)
        return torch.cat(made, dim=2)
