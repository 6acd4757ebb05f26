"""Rows of a site computed alone: gathered with all that goes with them, given to the module, and put back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from omnicache.kernels import fill_rows, inverse_of, take_rows
from omnicache.models.grid import Grid
from omnicache.models.map import Site
from omnicache.policy import Chosen, Policy, Rows, Selector, Tensors
from omnicache.runtime.executors.base import Cell, Proceed
from omnicache.runtime.store import own
from omnicache.runtime.streams import Args, Signature, rebuild, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass

STREAM = ("hidden_states", "x", "hidden", "input")
CONTEXT = ("encoder_hidden_states", "context", "encoder_hidden_states_image", "ip_hidden_states")
"""What rows look at besides each other: it goes with the entry that they are of."""
TABLES = ("image_rotary_emb", "rotary_emb", "freqs_cis", "freqs", "pos_embed", "position_embeddings")
"""Tables of positions: ``(rows, width)`` or ``(1, rows, ...)`` for all entries, or ``(entries, rows, ...)``."""


class Misfit(Exception):
    """Rows cannot be taken out of a site; why, as a sentence."""


class Partial:
    """Computes the rows of a site that a selector names."""

    def __init__(self, site: Site, policy: Policy, selector: Selector, signature: Signature):
        self.site, self.policy, self.selector, self.signature = site, policy, selector, signature

    def __call__(self, p: Pass, cell: Cell, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        """The module's output, as fresh as the chosen rows are; None if no row was chosen, or nothing can fill in for the others.

        Raises:
            Misfit: rows cannot be taken out; nothing was done.
        """
        given = Given(self.site, self.selector, self.signature.bind(args, kwargs))
        chosen = p.choose(self.policy, self.site, given.rows(p))
        if chosen is None:
            return None
        if chosen.note:
            p.trace.note(chosen.note)
        known = p.run.keeper.give(cell, cell.history[:1])[0].tensors if cell.ready(0) else None
        if known is None and chosen.stand_in is None:
            return None
        if chosen.everything(given.x):
            if not chosen.whole:
                p.trace.note(f"{type(self.selector).__name__} chose all rows of some modules, which were computed whole.")
            out = proceed(args, kwargs)
            cell.renew(p, own(tensors_of(out)))
            p.count("computed")
            return out
        out = proceed(*_call(self.signature, args, kwargs, given.gathered(chosen)))
        fresh = tensors_of(out)
        if known is None:
            full = stood_in(fresh, chosen, given.x)
            cell.learn(p, (), full)
        else:
            full, kept = filled(fresh, known, chosen, given.x)
            cell.renew(p, kept)
        p.count("partial", self.policy)
        return rebuild(out, full)


def filled(fresh: Tensors, known: Tensors, chosen: Chosen, x: torch.Tensor) -> tuple[Tensors, Tensors]:
    """Outputs with the fresh rows in the place of the old ones, to hand out and to keep; those without such rows are all fresh.

    Of whole entries a row is all that an entry has.
    """
    entries, rows = x.shape[:2]
    places = chosen.index[:, 0] // rows if chosen.whole else chosen.index
    there = (entries,) if chosen.whole else (entries, rows)
    axes, inverse = len(there), inverse_of(places, math.prod(there))
    out: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    for y, old in zip(fresh, known, strict=True):
        if y.shape[:axes] != places.shape or tuple(old.shape[:axes]) != there:
            out.append(y)
            kept += own((y,))
        elif y.requires_grad:
            out.append(old.flatten(0, axes - 1).index_copy(0, places.flatten(), y.flatten(0, axes - 1)).view_as(old))
            kept += own((out[-1],))
        else:
            held = (
                old
                if old.is_contiguous() and not (old.is_inference() and not torch.is_inference_mode_enabled())
                else old.clone(memory_format=torch.contiguous_format)
            )
            flat = held.view(len(inverse), -1)
            out.append(fill_rows(y.reshape(-1, flat.shape[1]), inverse, flat).view_as(held))
            kept.append(held)
    return tuple(out), tuple(kept)


def stood_in(fresh: Tensors, chosen: Chosen, x: torch.Tensor) -> Tensors:
    """Outputs in which every row that was not computed is made of those that stand for it."""
    assert chosen.stand_in is not None
    entries, rows = x.shape[:2]
    inverse = inverse_of(chosen.index, entries * rows)
    first = next((i for i, y in enumerate(fresh) if tuple(y.shape[:2]) == tuple(chosen.index.shape)), -1)
    if first < 0:
        return fresh
    parts = fresh[first].flatten(0, 1)[inverse[chosen.stand_in].clamp_min(0)]
    if chosen.weights is None:
        whole = parts[:, 0]
    else:
        shares = chosen.weights.view(*chosen.weights.shape, *(1,) * (parts.ndim - 2))
        whole = (parts.float() * shares).sum(1).to(parts.dtype)
    return (*fresh[:first], whole.unflatten(0, (entries, rows)), *fresh[first + 1 :])


def stream_name(bound: Mapping[str, Any]) -> str:
    """Which argument of a module has the rows that selectors choose among, ``(entries, rows, width)``; "" where none has."""
    streams = [n for n, v in bound.items() if isinstance(v, torch.Tensor) and v.ndim == 3]
    return next((n for n in STREAM if n in streams), next(iter(n for n in streams if n not in CONTEXT), ""))


class Given:
    """What a site is given, and which of it goes with its rows."""

    def __init__(self, site: Site, selector: Selector, bound: Mapping[str, Any]):
        self.site, self.selector, self.bound = site, selector, bound
        if site.kind != "mlp" and not selector.mixes:
            raise Misfit("they look at each other in it")
        self.name = stream_name(bound)
        if not self.name:
            raise Misfit("it has none")
        self.x: torch.Tensor = bound[self.name]

    def rows(self, p: Pass) -> Rows:
        """What the selector is told."""
        grid = block_grid = None
        if self.selector.needs_grid:
            grid = Grid.of(p.branch.latent, self.x.shape[0], self.x.shape[1], self.site.temporal)
            if grid is None:
                raise Misfit("how they lie in the picture is not known")
        block = p.blocks.get(self.site.block)
        if block is not None and grid is not None:
            block_grid = (
                grid if grid.fits(block) else Grid.of(p.branch.latent, block.shape[0], block.shape[1], not self.site.temporal)
            )
            same = block_grid is not None and (block_grid.height, block_grid.width) == (grid.height, grid.width)
            block = block if same else None
        together = any(self._table(n, t) is not None and not self._of_each(t) for n, t in self._others())
        return Rows(self.x, grid, block, block_grid if block is not None else None, together)

    def _others(self) -> list[tuple[str, torch.Tensor]]:
        return [(n, t) for n, v in self.bound.items() if n != self.name for t in tensors_of(v)]

    def _table(self, name: str, t: torch.Tensor) -> int | None:
        """How many rows of something else stand before those of the picture in a table of positions; None if it is none."""
        entries, rows = self.x.shape[:2]
        if name not in TABLES or t.ndim < 2 or (t.ndim > 2 and t.shape[0] not in (1, entries)):
            return None
        length = t.shape[0 if t.ndim == 2 else 1]
        context = next((v.shape[1] for n in CONTEXT if isinstance(v := self.bound.get(n), torch.Tensor) and v.ndim == 3), 0)
        return length - rows if length in (rows, rows + context) else None

    def _of_each(self, table: torch.Tensor) -> bool:
        """Whether a table has rows of its own for each entry."""
        return table.ndim > 2 and table.shape[0] == self.x.shape[0]

    def _merged(self, chosen: Chosen) -> torch.Tensor:
        """The stream with every row that is computed the mean of those that it stands for."""
        assert chosen.stand_in is not None
        flat, to = self.x.flatten(0, 1), chosen.stand_in[:, 0]
        count = torch.zeros(len(flat), dtype=flat.dtype, device=flat.device).index_add(0, to, torch.ones_like(flat[:, 0]))
        return (torch.zeros_like(flat).index_add(0, to, flat) / count.clamp_min(1)[:, None]).view_as(self.x)

    def gathered(self, chosen: Chosen) -> dict[str, Any]:
        """All arguments for the chosen sequences, by name."""
        if chosen.whole:
            return self._entries(chosen.index[:, 0] // self.x.shape[1])
        x = self._merged(chosen) if chosen.merge else self.x
        entries, rows = x.shape[:2]
        sequences = chosen.index.shape[0]
        owner = chosen.index[:, 0] // rows  # the entry that a sequence is of
        places = chosen.index[0] % rows
        same = sequences == entries  # whether entries keep their places: then what goes with entries stays as it is

        def follow(name: str, t: torch.Tensor) -> torch.Tensor:
            before = self._table(name, t)
            if before is not None and self._of_each(t):
                length = before + rows
                first = owner[:, None] * length + torch.arange(before, device=t.device)
                there = torch.cat((first, chosen.index // rows * length + before + chosen.index % rows), dim=1)
                return take_rows((t.flatten(0, 1),), there)[0]
            if before is not None:
                return t.index_select(0 if t.ndim == 2 else 1, torch.cat((torch.arange(before, device=t.device), before + places)))
            if name in CONTEXT:
                return t if same or t.shape[0] != entries else t[owner]
            if t.ndim >= 3 and tuple(t.shape[:2]) == (entries, rows):
                return take_rows((t.flatten(0, 1),), chosen.index)[0]
            if rows in t.shape[1:] or (t.ndim >= 2 and t.shape[0] == rows != entries):
                raise Misfit(f"{name} goes with them in a way that is not known")
            return t if same or t.ndim == 0 or t.shape[0] != entries else t[owner]

        made: dict[str, Any] = {}
        for name, held in self.bound.items():
            if name == self.name:
                made[name] = take_rows((x.flatten(0, 1),), chosen.index)[0]
            else:
                found = tensors_of(held)
                made[name] = rebuild(held, tuple(follow(name, t) for t in found)) if found else held
        return made

    def _entries(self, chosen: torch.Tensor) -> dict[str, Any]:
        """All arguments for some entries."""
        entries = self.x.shape[0]

        def follow(name: str, t: torch.Tensor) -> torch.Tensor:
            if t.ndim == 0 or (name in TABLES and t.ndim == 2):
                return t
            if t.shape[0] == entries:
                return t.index_select(0, chosen)
            if t.shape[0] % entries == 0:
                raise Misfit(f"{name} goes with them in a way that is not known")
            return t

        made: dict[str, Any] = {}
        for name, held in self.bound.items():
            found = tensors_of(held)
            made[name] = rebuild(held, tuple(follow(name, t) for t in found)) if found else held
        return made


def _call(signature: Signature, args: Args, kwargs: Mapping[str, Any], bound: Mapping[str, Any]) -> tuple[Args, dict[str, Any]]:
    """A call with other values for the same arguments."""
    names = [signature.names[i] if i < len(signature.names) else str(i) for i in range(len(args))]
    return tuple(bound[n] for n in names), {n: bound[n] for n in kwargs}
