from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from omnicache.errors import is_out_of_memory
from omnicache.policy import Columns, Decision, Tensors
from omnicache.runtime.executors.base import Cell, Proceed
from omnicache.runtime.executors.columns import ByColumns, Unlike, wide
from omnicache.runtime.executors.inside import Inside
from omnicache.runtime.store import own
from omnicache.runtime.streams import Args

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class NeuronWise(ByColumns):
    """An MLP of two layers, ``y = act(x W1 + b1) W2 + b2``, of which some neurons are computed for each group of rows (Chipmunk).

    Kept are ``y`` and what goes into the second layer, ``a``: of the chosen neurons the change of ``a`` is put through ``W2`` and
    added to ``y``, so that ``y = a W2 + b2`` holds throughout. Activations may join two halves of the first layer (gates). That
    nothing in between mixes neurons is proved once, by computing half of them anew.
    """

    distrusted = "its neurons look at each other"

    def all(self, p: Pass, cell: Cell, turn: Any, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        calls: list[tuple[Linear, torch.Tensor]] = []

        def look(linear: Callable[..., torch.Tensor], given: Args, named: Mapping[str, Any]) -> torch.Tensor:
            out = linear(*given, **named)
            calls.append((Linear(*given, **named), out))
            return out

        with Inside(functional.linear, look):
            out = proceed(args, kwargs)
        if len(calls) != 2 or calls[1][1] is not out or not calls[0][0].feeds(calls[1][0]):
            self.whole(p, "it is no two layers with an activation in between")
            return out
        (first, _), (second, _) = calls
        hidden, y = second.input.detach().flatten(1, -2), out.detach().flatten(1, -2)
        if not self._proved(p, hidden, y, args, kwargs):
            return out
        if p.run.keeper.wants(cell, p.step):
            p.pick(self.policy, self.site, self._columns(turn, first, hidden.shape[-1], dense=True))
        cell.learn(p, (), (y.to(wide(y)), hidden))
        return out

    def some(self, p: Pass, cell: Cell, turn: Any, kept: Tensors, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        def choose(first: Linear) -> torch.Tensor | None:
            return p.pick(self.policy, self.site, self._columns(turn, first, kept[1].shape[-1], dense=False))

        update = Update(kept[0], writable(kept[1]), self.group, choose)
        with Inside(functional.linear, update):
            out = proceed(args, kwargs)
        if not update.done:
            raise Unlike
        cell.renew(p, (update.y.detach(), update.hidden))
        return out

    def _columns(self, turn: Any, first: Linear, total: int, dense: bool) -> Columns:
        return Columns(turn, total, dense, functools.partial(first.of_means, total, self.group))

    def _proved(self, p: Pass, hidden: torch.Tensor, y: torch.Tensor, args: Args, kwargs: Mapping[str, Any]) -> bool:
        """Whether half of the neurons computed by themselves are what they were among all, and so is the output. Waits for the
        device, once."""
        key = (id(self.policy), self.site)
        if key in p.session.proven:
            return True
        groups, half = -(-hidden.shape[1] // self.group), torch.arange(0, hidden.shape[-1], 2, device=hidden.device)
        update = Update(y.to(wide(y)), hidden.clone(), self.group, lambda _: half.expand(len(hidden), groups, -1))
        try:
            with torch.no_grad(), p.nested(Decision.COMPUTE), Inside(functional.linear, update):
                again = self.module.forward(*args, **kwargs)  # not the call: what is around it would see it twice
            same = update.done and _near(update.hidden, hidden) and _near(again.flatten(1, -2), y)
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            same = False
        if same:
            p.session.proven.add(key)
        elif bool(torch.isfinite(hidden).all()):
            p.session.distrusted.add(key)
            self.whole(p, self.distrusted)
        return same


@dataclass(frozen=True, eq=False)
class Linear:
    """One call of a linear layer: ``(..., in)``, ``(out, in)``, ``(out,)``."""

    input: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None

    def feeds(self, second: Linear) -> bool:
        """Whether the other one's input can be an activation of this one's output: by neuron, or of two halves."""
        neurons = second.weight.shape[1]
        alike = self.input.ndim >= 3 and self.input.shape[:-1] == second.input.shape[:-1]
        return alike and self.weight.shape[0] in (neurons, 2 * neurons)

    def of_means(self, neurons: int, group: int) -> torch.Tensor:
        """The output for the mean row of each group, ``(batch, groups, neurons, parts)``."""
        with torch.no_grad():
            means = torch.stack([rows.mean(1) for rows in self.input.flatten(1, -2).split(group, dim=1)], dim=1)
            return functional.linear(means, self.weight, self.bias).unflatten(-1, (-1, neurons)).mT

    def narrow(self, linear: Callable[..., torch.Tensor], chosen: torch.Tensor, neurons: int, group: int) -> torch.Tensor:
        """The output of the chosen neurons of each row, ``(..., parts * kept)``."""
        rows = self.input.flatten(1, -2)
        starts = range(0, self.weight.shape[0], neurons)

        def some(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            at = torch.cat([start + at for start in starts])
            return linear(x, self.weight[at], None if self.bias is None else self.bias[at])

        made = [
            torch.cat([some(x, at) for x, at in zip(xs.split(group), ats, strict=True)])
            for xs, ats in zip(rows, chosen, strict=True)
        ]
        return torch.stack(made).view(*self.input.shape[:-1], -1)


class Update:
    """In place of the two layers of an MLP: the first for some neurons, and of the second what their change adds to its output.

    Attributes:
        y: the output, ``(batch, rows, out)`` in float32 or wider.
        hidden: what goes into the second layer, ``(batch, rows, neurons)``; written to.
        choose: the neurons of each group, ``(batch, groups, kept)``, from the first layer's call; None if it cannot.
    """

    def __init__(self, y: torch.Tensor, hidden: torch.Tensor, group: int, choose: Callable[[Linear], torch.Tensor | None]):
        self.y, self.hidden, self.group, self.choose = y, hidden, group, choose
        self._chosen: torch.Tensor | None = None
        self._calls = 0

    @property
    def done(self) -> bool:
        return self._calls == 2

    def __call__(self, linear: Callable[..., torch.Tensor], given: Args, named: Mapping[str, Any]) -> torch.Tensor:
        call = Linear(*given, **named)
        self._calls += 1
        if self._calls == 1 and call.input.ndim >= 3 and call.input.shape[:-1].numel() == self.hidden.shape[:-1].numel():
            self._chosen = self.choose(call)
            if self._chosen is not None:
                return call.narrow(linear, self._chosen, self.hidden.shape[-1], self.group)
        if self._calls == 2 and self._chosen is not None and call.input.shape[-1] == self._chosen.shape[-1]:
            return self._add(call, self._chosen)
        raise Unlike

    def _add(self, second: Linear, chosen: torch.Tensor) -> torch.Tensor:
        fresh, made = second.input.flatten(1, -2), []
        with torch.autocast(fresh.device.type, enabled=False):
            for b, ats in enumerate(chosen):
                parts = (t[b].split(self.group) for t in (self.y, self.hidden, fresh))
                for y, old, new, at in zip(*parts, ats, strict=True):
                    change = new.to(self.y.dtype) - old[:, at].to(self.y.dtype)
                    made.append(y + change @ second.weight[:, at].to(self.y.dtype).mT)
                    old[:, at] = new.detach().to(old.dtype)
        self.y = torch.cat(made).view_as(self.y)
        return self.y.to(_out(fresh), copy=True).view(*second.input.shape[:-1], -1)


def writable(t: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy if it was made in inference mode and cannot be written to outside of it."""
    return own((t,))[0] if t.is_inference() and not torch.is_inference_mode_enabled() else t


def _out(t: torch.Tensor) -> torch.dtype:
    """In which a linear layer answers such an input."""
    kind = t.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and t.dtype is not torch.float64 else t.dtype


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().amax() <= 1e-2 * b.abs().amax())
