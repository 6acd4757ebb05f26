from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Tensors
from omnicache.runtime.executors.base import RANKS, Cell, Proceed, Role
from omnicache.runtime.hook import standing_in
from omnicache.runtime.ranks import Ranks
from omnicache.runtime.store import own, versions
from omnicache.runtime.streams import Args, Layout, Shape, Signature, layout_by_identity, layout_by_shape, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


@dataclass
class _Run:
    """Blocks that have handed one stream on without anything in between, while they are being computed."""

    first: int
    bound: Mapping[str, Any]
    bound_versions: Mapping[str, int]
    bound_copies: Mapping[str, torch.Tensor]
    last: int = -1
    last_bound: Mapping[str, Any] = field(default_factory=dict)
    outputs: Tensors = ()
    output_versions: tuple[int, ...] = ()
    output_copies: Tensors = ()
    handed_back: bool = False
    """Whether a block has returned a tensor that it was given: whoever holds that sees what later blocks write to it."""

    def written(self, ranks: Ranks) -> bool:
        """Whether something wrote to the outputs since the last block returned them."""
        if versions(self.outputs) != self.output_versions:
            return True
        return _differ(list(zip(self.outputs, self.output_copies, strict=False)), ranks)

    def keeps_shape(self, layout: Layout) -> bool:
        """Whether the blocks so far return what entered them in its shape: one that takes its part of the tokens does not, and
        the increment is that of the blocks after it."""
        entry = [self.bound.get(n) for n in layout.names]
        return all(not isinstance(a, torch.Tensor) or a.shape == b.shape for a, b in zip(entry, self.outputs, strict=True))

    def entry_written(self, names: tuple[str, ...], ranks: Ranks) -> bool:
        """Whether a block wrote to what the first one was given."""
        now = {n: self.bound[n] for n in names}
        if versions(tuple(now.values())) != tuple(self.bound_versions[n] for n in names):
            return True
        return _differ([(now[n], c) for n, c in self.bound_copies.items() if n in now], ranks)


def _differ(pairs: list[tuple[torch.Tensor, torch.Tensor]], ranks: Ranks) -> bool:
    """Whether values differ on any rank: one that writes what was there already, or holds NaN, must learn what all others do."""
    return bool(pairs) and ranks.any(not all(torch.equal(a, b) for a, b in pairs), pairs[0][0].device)


@dataclass
class _Segment:
    """A learned run of blocks: reused as one function."""

    first: int
    last: int
    layout: Layout
    cell: Cell
    entry_shapes: list[torch.Size] = field(default_factory=list)
    entered: Tensors = ()  # while it is proved: what its first block was given,
    handed: Tensors = ()  # and what the last one handed on
    inner: dict[nn.Module, Callable[[Args, Mapping[str, Any]], Any]] = field(default_factory=dict)
    """How the blocks between the first and the last hand their inputs on, once it is proved."""
    passed: tuple[Chain, ...] = ()
    """Their roles,"""
    turns: Mapping[int, int] = field(default_factory=dict)
    """and what ``Pass.take_turns`` is to count for them, if they are not inside other roles."""

    def handed_on(self, p: Pass, given: Tensors) -> None:
        """If what a block is given is not what the one before returned, something was added, and the proof has swallowed it."""
        p.disturbed |= not all(any(a is b for b in self.handed) for a in given)


class ChainState:
    """Of one chain in one branch: segments learned at the last computed step, and the run that is being watched now."""

    __slots__ = ("built", "copied_inputs", "copied_outputs", "layouts", "open", "owner", "ran", "roles", "shapes")

    def __init__(self) -> None:
        self.copied_inputs: set[int] = set()  # blocks that write to their inputs
        self.copied_outputs: set[int] = set()  # blocks whose outputs are written to by what comes next
        self.owner: dict[int, _Segment] = {}
        self.built: list[_Segment] = []
        self.ran: set[int] = set()  # blocks computed in this pass
        self.open: _Run | None = None
        self.shapes: dict[int, Shape] = {}
        self.layouts: dict[tuple[type, int], Layout] = {}  # by class and number of outputs: one class may serve two kinds of rows
        self.roles: dict[int, Chain] = {}

    def halved(self, before: ChainState | None) -> ChainState:
        """The same for one half of the batch, with the cells that the half had ``before``."""
        made = ChainState()
        made.copied_inputs, made.copied_outputs = self.copied_inputs, self.copied_outputs
        made.layouts, made.roles = self.layouts, self.roles
        made.shapes = {i: shape.halved() for i, shape in self.shapes.items()}
        cells = {(s.first, s.last): s.cell for s in set_of(before.owner.values())} if before is not None else {}
        for s in set_of(self.owner.values()):
            cell = cells.get((s.first, s.last)) or Cell(s.cell.policy, s.cell.site)
            sizes = [torch.Size((size[0] // 2, *size[1:])) for size in s.entry_shapes]
            piece = replace(s, cell=cell, entry_shapes=sizes, entered=(), handed=())
            made.owner |= dict.fromkeys(range(s.first, s.last + 1), piece)
        return made


def set_of(segments: Any) -> list[_Segment]:
    return list({id(s): s for s in segments}.values())


class Chain:
    """Block number ``index`` of a site that consists of blocks in a row.

    At a computed step it watches which blocks are joined: a block whose inputs are, as objects, the outputs of the one before
    continues the run; anything else (a ControlNet's addition, a reshape between spatial and temporal blocks) begins a new one.
    Each run is then one function from its entry to its exit. On a reuse step all blocks of a run hand their inputs on and the
    last one puts in the estimate.
    """

    outer: Role | None = None

    def __init__(self, site: Site, index: int, policy: Policy, signatures: Mapping[nn.Module, Signature], number: int = 0):
        self.site, self.index, self.policy, self.rank = site, index, policy, RANKS[site.kind]
        self.number = number  # among the sites of its policy
        self.block = site.modules[index]
        self.signature = signatures[self.block]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE or p.bars(self.site):
            return p.computes(proceed, args, kwargs)
        state = p.chain(self.policy, self.site, p.turn(self))
        bound = self.signature.bind(args, kwargs)
        if p.reuses(self.policy, self.number):
            segment = state.owner.get(self.index)
            if segment is not None and (p.segment is segment or self._enters(p, segment, bound)):
                p.count("reused", self.policy)
                return self._reuse(p, state, segment, bound)
        out = self._compute(p, state, proceed, args, kwargs, bound)
        p.count("computed")
        return out

    def _enters(self, p: Pass, segment: _Segment, bound: Mapping[str, Any]) -> bool:
        """At the first block of a segment: whether all of it can be reused in this pass."""
        if self.index != segment.first or not segment.cell.ready(p.lag):
            return False
        if segment.first != segment.last and p.distrusts(self.policy, self.site):
            return False
        entry = segment.layout.read(bound)
        if [t.shape for t in entry] != segment.entry_shapes:
            return False
        p.segment, segment.entered = segment, ()
        if segment.first == segment.last:
            return True
        if p.proves(self.policy, self.site):
            segment.entered = entry
        else:
            standing_in.set(segment.inner)
        return True

    def _reuse(self, p: Pass, state: ChainState, segment: _Segment, bound: Mapping[str, Any]) -> Any:
        shape = state.shapes[self.index]
        proving = bool(segment.entered)
        if self.index != segment.last:
            given = state.layouts[type(self.block), len(shape.sizes)].read(bound)
            if not proving:
                return shape.fill(given)
            if self.index != segment.first:
                segment.handed_on(p, given)
            out = shape.poison()  # hand on nothing of use: nobody but the next block may need it
            segment.handed = tensors_of(out)
            return out
        # The stream as it arrives here: what entered the segment, and whatever was added since the segment was learned.
        entry = segment.layout.read(bound)
        if proving:
            segment.handed_on(p, entry)
            entry, segment.entered, segment.handed = segment.entered, (), ()
        if segment.inner and not proving:  # what the inner blocks would have counted
            p.take_turns(segment.passed, segment.turns)
            p.record.reused += len(segment.inner)
            standing_in.set(None)
        p.segment = None
        return shape.fill(segment.cell.estimate(p, self._inputs(p, entry)))

    def _inputs(self, p: Pass, entry: Tensors) -> Tensors:
        """What the predictor is given."""
        return (*entry, p.entered) if self.policy.how.needs_entry and p.entered is not None else entry

    def _compute(
        self, p: Pass, state: ChainState, proceed: Proceed, args: Args, kwargs: Mapping[str, Any], bound: Mapping[str, Any]
    ) -> Any:
        if p.forced is not None:
            return proceed(args, kwargs)
        if not state.ran:
            p.on_finish(lambda: self._finish(p, state))
        state.ran.add(self.index)
        run = state.open
        joined = (
            run is not None
            and run.last == self.index - 1
            and not run.written(p.run.ranks)
            and not p.distrusts(self.policy, self.site)
        )
        if run is not None and joined and type(self.block) is type(self.site.modules[run.last]):
            layout = layout_by_identity(run.outputs, bound)
            if layout is not None:
                state.layouts[type(self.block), len(run.outputs)] = layout
            if layout is None or (self.policy.how.needs_input and not run.keeps_shape(layout)):
                run = self._close(p, state)
        else:
            run = self._close(p, state)
        if run is None:
            if self.index in state.copied_inputs:
                bound = {n: own((v,))[0] if isinstance(v, torch.Tensor) else v for n, v in bound.items()}
            given = {n: v for n, v in bound.items() if isinstance(v, torch.Tensor)}
            counts = {n: versions((v,))[0] for n, v in given.items()}
            run = state.open = _Run(self.index, bound, counts, _blind_copies(state, given))
        out = proceed(args, kwargs)
        found = tensors_of(out)
        run.handed_back |= any(a is b for a in found for b in tensors_of((args, kwargs)))
        if found:  # what shows no tensors is never reused, and may hold some
            state.shapes[self.index], state.roles[self.index] = Shape(out), self
        run.outputs = own(found) if self.index in state.copied_outputs else found
        run.output_copies = tuple(_blind_copies(state, dict(enumerate(run.outputs))).values())
        run.last, run.last_bound, run.output_versions = self.index, bound, versions(run.outputs)
        return out

    def _close(self, p: Pass, state: ChainState) -> None:
        """The watched run is over: learn it as one function."""
        run, state.open = state.open, None
        if run is None:
            return
        if run.written(p.run.ranks):
            state.copied_outputs.add(run.last)  # too late for this step: its value is gone
            return
        if run.handed_back and p.distrusts(self.policy, self.site):
            p.trace.note(f"blocks of {self.site.name} that return what they were given are always computed: others read it, too.")
            return
        layout = state.layouts.get((type(self.site.modules[run.last]), len(run.outputs)))
        if layout is None:
            layout = layout_by_shape(run.outputs, run.last_bound)
        if layout is None or any(not isinstance(run.bound.get(n), torch.Tensor) for n in layout.names):
            p.trace.note(
                f"block {run.last} of {self.site.name} is always computed: which of its inputs its output continues is not clear."
            )
            return
        before = state.owner.get(run.first)
        same = before is not None and (before.first, before.last, before.layout) == (run.first, run.last, layout)
        segment = before if same and before is not None else _Segment(run.first, run.last, layout, Cell(self.policy, self.site))
        entry = layout.read(run.bound)
        if self.policy.how.needs_input and run.entry_written(layout.names, p.run.ranks):
            state.copied_inputs.add(run.first)
            return
        if self.policy.how.needs_input and any(a.shape != b.shape for a, b in zip(entry, run.outputs, strict=True)):
            p.trace.note(f"block {run.last} of {self.site.name} is always computed: it changes the shape of its stream.")
            return
        segment.entry_shapes = [t.shape for t in entry]
        segment.inner, segment.passed = {}, tuple(state.roles[i] for i in range(run.first + 1, run.last))
        segment.turns = {} if any(role.outer is not None for role in segment.passed) else {id(role): 1 for role in segment.passed}
        for role in segment.passed:
            shape = state.shapes[role.index]
            segment.inner[role.block] = shape.hand_on(role.signature, state.layouts[type(role.block), len(shape.sizes)])
        segment.cell.learn(p, self._inputs(p, entry), run.outputs)
        state.built.append(segment)

    def _finish(self, p: Pass, state: ChainState) -> None:
        self._close(p, state)
        reused = [s for s in set_of(state.owner.values()) if state.ran.isdisjoint(range(s.first, s.last + 1))]
        state.owner = {i: s for s in (*reused, *state.built) for i in range(s.first, s.last + 1)}
        state.built, state.ran = [], set()


def _blind_copies(state: ChainState, tensors: Mapping[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
    """Inference tensors count no writes: at the first computed step they are copied, to compare. What is found then is kept to."""
    blind = not state.owner and any(t.is_inference() for t in tensors.values())
    return dict(zip(tensors, own(tuple(tensors.values())), strict=True)) if blind else {}
