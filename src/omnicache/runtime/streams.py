"""Tensors in, tensors out: how a module's arguments and outputs become a tuple of tensors and back.

A *stream* is a tensor that runs through a block and comes out changed: the hidden states, and in two-stream blocks the text
beside them. Blocks name and order them differently; which output continues which input is learned by watching them run.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import nn

Tensors = tuple[torch.Tensor, ...]
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
T = TypeVar("T")


class Signature:
    """Names of a module's positional arguments, read once."""

    def __init__(self, module: nn.Module):
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(module.forward).parameters.values()
        self.names = [p.name for p in parameters if p.kind in kinds]

    def bind(self, args: Args, kwargs: Kwargs) -> dict[str, Any]:
        """All arguments by name; surplus positional ones by number."""
        bound: dict[str, Any] = {}
        for i, value in enumerate(args):
            bound[self.names[i] if i < len(self.names) else str(i)] = value
        bound.update(kwargs)
        return bound

    def replace(self, args: Args, kwargs: Kwargs, name: str, value: Any) -> tuple[Args, dict[str, Any]]:
        """The same call with one argument exchanged."""
        if name in kwargs:
            return args, {**kwargs, name: value}
        place = self.place(name)
        return (*args[:place], value, *args[place + 1 :]), dict(kwargs)

    def place(self, name: str) -> int:
        """Where an argument stands when it is given by position; -1 if it can be given by name only."""
        return int(name) if name.isdigit() else self.names.index(name) if name in self.names else -1


def tensors_of(output: Any) -> Tensors:
    """The tensors of a module's output, in order: a tensor, or those in tuples, lists, mappings and dataclasses (None left out)."""
    if isinstance(output, torch.Tensor):
        return (output,)
    if isinstance(output, (tuple, list)):
        return tuple(t for part in output for t in tensors_of(part))
    if isinstance(output, Mapping):
        return tuple(t for part in output.values() for t in tensors_of(part))
    if is_dataclass(output) and not isinstance(output, type):
        return tuple(t for f in fields(output) for t in tensors_of(getattr(output, f.name)))
    return ()


def rebuild(like: Any, tensors: Tensors) -> Any:
    """``like`` with its tensors replaced, in the order of ``tensors_of``."""
    return _rebuild(like, iter(tensors))


def _rebuild(part: Any, supply: Iterator[torch.Tensor]) -> Any:
    if isinstance(part, torch.Tensor):
        return next(supply)
    if type(part) is dict:
        return {k: _rebuild(v, supply) for k, v in part.items()}
    if isinstance(part, Mapping):
        # diffusers' outputs are OrderedDict dataclasses: rebuilt by their own constructor
        return type(part)(**{k: _rebuild(v, supply) for k, v in part.items()})
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(_rebuild(v, supply) for v in part))
    if isinstance(part, (tuple, list)):
        return type(part)(_rebuild(v, supply) for v in part)
    if is_dataclass(part) and not isinstance(part, type):
        made = copy.copy(part)  # not by its constructor, which may want or do other things
        for f in fields(part):
            object.__setattr__(made, f.name, _rebuild(getattr(part, f.name), supply))
        return made
    return part


class Shape:
    """The structure of an output without its values: enough to rebuild it, or to stand in for it.

    A tensor that stands in several places is one thing there, also when it is rebuilt: who writes to it in one place (adapters of
    U-Nets do) writes to it in all.
    """

    __slots__ = ("_empty", "_places", "_plain", "sizes")

    def __init__(self, output: Any):
        found = tensors_of(output)
        numbers = {i: n for n, i in enumerate(dict.fromkeys(map(id, found)))}
        self._places = tuple(numbers[id(t)] for t in found)
        self.sizes = [(t.shape, t.dtype, t.device) for t in found]
        self._empty = rebuild(output, tuple(t.new_empty(0) for t in found))
        self._plain = type(output) is tuple and len(output) == len(found) and all(isinstance(t, torch.Tensor) for t in output)

    def distinct(self, parts: Sequence[T]) -> tuple[T, ...]:
        """One for each tensor that is another one, of as many as there are places."""
        return tuple(part for i, part in enumerate(parts) if self._places[i] not in self._places[:i])

    def fill(self, tensors: Tensors) -> Any:
        """The output with these tensors, one for each place or one for each that is another one."""
        if len(tensors) < len(self._places):
            tensors = tuple(tensors[n] for n in self._places)
        if self._plain:
            return tensors
        return rebuild(self._empty, tensors)

    def halved(self) -> Shape:
        """The same structure for one half of the batch: every tensor with half of its rows."""
        made = copy.copy(self)
        made.sizes = [(torch.Size((s[0] // 2, *s[1:])) if len(s) and s[0] % 2 == 0 else s, t, d) for s, t, d in self.sizes]
        return made

    def hand_on(self, signature: Signature, layout: Layout) -> Callable[[Args, Kwargs], Any]:
        """A function that returns a block's own inputs in the form of its output; it runs for every block that is passed over."""
        places = [(n, signature.place(n)) for n in layout.names]
        if isinstance(self._empty, torch.Tensor):
            name, at = places[0]
            return lambda args, kwargs: kwargs[name] if name in kwargs else args[at]
        if self._plain and len(places) == 2:
            (a, i), (b, j) = places
            return lambda args, kwargs: (kwargs[a] if a in kwargs else args[i], kwargs[b] if b in kwargs else args[j])
        return lambda args, kwargs: self.fill(tuple(kwargs[n] if n in kwargs else args[i] for n, i in places))

    def poison(self) -> Any:
        """An output of the right shapes full of NaN: if anybody reads it, it shows."""
        return self.fill(tuple(torch.full(s, torch.nan if t.is_floating_point else 0, dtype=t, device=d) for s, t, d in self.sizes))

    def stand_in(self) -> Any:
        """An output of the right shapes that holds no storage: for modules whose output nobody reads.

        The first tensor can be written to (some models add to it in place); the others are zero-storage expands.
        """
        made = []
        for i, (size, dtype, device) in enumerate(self.sizes):
            zero = torch.zeros((), dtype=dtype, device=device)
            made.append(torch.empty(size, dtype=dtype, device=device) if i == 0 else zero.expand(size))
        return self.fill(tuple(made))


class Layout:
    """Which argument each output of a block continues, for example ``("encoder_hidden_states", "hidden_states")``."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def read(self, bound: Mapping[str, Any]) -> Tensors:
        return tuple(bound[n] for n in self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)


def layout_by_identity(outputs: Tensors, bound: Mapping[str, Any]) -> Layout | None:
    """The layout of a block, from the arguments of the next one: each output must be one of them, the very same tensor."""
    names = []
    for output in outputs:
        found = [name for name, value in bound.items() if value is output]
        if len(found) != 1:
            return None
        names.append(found[0])
    return Layout(tuple(names)) if names else None


def layout_by_shape(outputs: Tensors, bound: Mapping[str, Any], channels: bool = False) -> Layout | None:
    """A guess for a block that nothing follows: each output continues the only stream-like argument of its shape.

    With ``channels`` pictures and films may also differ in the number of their channels, ``(batch, channels, ...)``: denoisers give
    a variance beside the noise, or are given a mask and a picture beside the latents.
    """
    stream = {n: v for n, v in bound.items() if isinstance(v, torch.Tensor) and v.is_floating_point() and v.ndim >= 3}
    names: list[str] = []
    for output in outputs:
        like = {n: v for n, v in stream.items() if v.dtype == output.dtype and n not in names}
        fits = [n for n, v in like.items() if v.shape == output.shape]
        if channels and not fits:
            fits = [n for n, v in like.items() if v.ndim == output.ndim > 3 and leading(v, output.shape).shape == output.shape]
        named = [n for n in fits if n == "hidden_states"] if len(outputs) == 1 else []
        fits = named or fits
        if len(fits) != 1:
            return None
        names.append(fits[0])
    return Layout(tuple(names)) if names else None


def leading(t: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A tensor with as many channels as a shape has: its first ones, or with zeros for those that it lacks."""
    missing = shape[1] - t.shape[1]
    if missing > 0:
        return torch.cat((t, t.new_zeros(t.shape[0], missing, *t.shape[2:])), 1)
    return t[:, : shape[1]] if missing else t
