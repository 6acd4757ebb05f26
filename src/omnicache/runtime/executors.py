"""What a hooked module does at one call: compute and let the predictor learn, or put in an estimate.

There are three layouts of a site and one executor each. All state lives in the cells that the pass hands out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from omnicache.kernels import gather_rows, relative_change, scatter_rows
from omnicache.models.map import Site
from omnicache.policy import Decision, Entry, History, Policy, Tensors, Trigger
from omnicache.runtime.store import Lent, own, versions
from omnicache.runtime.streams import Args, Layout, Shape, Signature, layout_by_identity, layout_by_shape, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.session import Pass


Proceed = Callable[[Args, Mapping[str, Any]], Any]
"""Runs what lies further inside: other roles on this module, and in the end the module."""


class Role(Protocol):
    """One thing to do at the calls of one module."""

    rank: int
    """Outer roles have lower ranks."""

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any: ...


class Cell:
    """What one site keeps for one branch of one run: its history, and what was lent of it."""

    __slots__ = ("history", "lent")

    def __init__(self) -> None:
        self.history: History = ()
        self.lent = Lent()

    def ready(self, lag: int) -> bool:
        if self.lent.spoiled():
            self.history = ()
        return len(self.history) > lag

    def learn(self, p: Pass, policy: Policy, x: Tensors, y: Tensors) -> None:
        if self.lent.spoiled():
            self.history = ()
        self.lent.forget()
        kept = y if policy.how.needs_input else own(y)
        self.history = policy.how.learn(self.history, p.step, x, kept)

    def estimate(self, p: Pass, policy: Policy, x: Tensors) -> Tensors:
        history = self.history[p.lag :]
        return self.lent.lend(history, policy.how.estimate(history, p.step, x))


RANKS = {"denoiser": 0, "stack": 2, "deep": 2, "block": 4, "attention": 6, "cross_attention": 6, "mlp": 6}


class Whole:
    """A site of one module whose output is kept as it is."""

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.policy, self.rank = site, policy, RANKS[site.kind]
        self.signature = signatures[site.modules[0]]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE:
            return proceed(args, kwargs)
        cell, seen = p.cell(self.policy, self.site), p.shapes.get(self.site)
        if seen is not None and p.reuses(self.policy) and cell.ready(p.lag):
            x = self._streams(seen, args, kwargs)
            if x is not None:
                if self.policy.which is not None and p.forced is None:
                    return self._rows(p, cell, seen[0], proceed, args, kwargs)
                p.count("reused")
                return seen[0].fill(cell.estimate(p, self.policy, x))
        out = proceed(args, kwargs)
        if p.forced is None:
            y = tensors_of(out)
            layout = layout_by_shape(y, self.signature.bind(args, kwargs)) if self.policy.how.needs_input else None
            seen = (Shape(out), layout)
            x = self._streams(seen, args, kwargs)
            if x is not None and y:
                p.shapes[self.site] = seen
                cell.learn(p, self.policy, x, y)
            else:
                p.trace.note(f"{self.site.name} is always computed: which of its inputs its output continues is not clear.")
        p.count("computed")
        return out

    def _streams(self, seen: tuple[Shape, Layout | None], args: Args, kwargs: Mapping[str, Any]) -> Tensors | None:
        if not self.policy.how.needs_input:
            return ()
        return None if seen[1] is None else seen[1].read(self.signature.bind(args, kwargs))

    def _rows(self, p: Pass, cell: Cell, shape: Shape, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        """Estimate, with the rows that the selector names computed afresh, in the output and in what is kept."""
        assert self.policy.which is not None
        bound = self.signature.bind(args, kwargs)
        name, x = next((n, v) for n, v in bound.items() if isinstance(v, torch.Tensor) and v.ndim == 3)
        others = [n for n, v in bound.items() if n != name and isinstance(v, torch.Tensor) and x.shape[1] in v.shape]
        if others or len(shape.sizes) != 1:
            p.trace.note(
                f"{self.site.name}: rows cannot be taken alone, because {', '.join(others) or 'its outputs'} go with them."
            )
            p.count("reused")
            return shape.fill(cell.estimate(p, self.policy, ()))
        state = p.selector_state(self.policy)
        index, state = self.policy.which.choose(state, self.site, p.step, x)
        p.set_selector_state(self.policy, state)
        if index is None:
            p.count("reused")
            return shape.fill(cell.estimate(p, self.policy, ()))
        rows = tensors_of(proceed(*self.signature.replace(args, kwargs, name, gather_rows(x, index))))[0]
        newest = cell.history[0]
        fresh = (scatter_rows(newest.tensors[0], index, rows),)
        cell.history = (Entry(newest.step, fresh), *cell.history[1:])
        p.count("partial")
        return shape.fill(cell.lent.lend(cell.history, fresh))


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

    @property
    def written(self) -> bool:
        """Whether something wrote to the outputs since the last block returned them."""
        if versions(self.outputs) != self.output_versions:
            return True
        return any(not torch.equal(t, c) for t, c in zip(self.outputs, self.output_copies, strict=False))

    def entry_written(self, names: tuple[str, ...]) -> bool:
        """Whether a block wrote to what the first one was given."""
        now = {n: self.bound[n] for n in names}
        if versions(tuple(now.values())) != tuple(self.bound_versions[n] for n in names):
            return True
        return any(not torch.equal(now[n], c) for n, c in self.bound_copies.items() if n in now)


@dataclass
class _Segment:
    """A learned run of blocks: reused as one function."""

    first: int
    last: int
    layout: Layout
    cell: Cell


class ChainState:
    """Of one chain in one branch: segments learned at the last computed step, and the run that is being watched now."""

    __slots__ = ("built", "copied_inputs", "copied_outputs", "layouts", "open", "owner", "ran", "shapes")

    def __init__(self) -> None:
        self.copied_inputs: set[int] = set()  # blocks that write to their inputs
        self.copied_outputs: set[int] = set()  # blocks whose outputs are written to by what comes next
        self.owner: dict[int, _Segment] = {}
        self.built: list[_Segment] = []
        self.ran: set[int] = set()  # blocks computed in this pass
        self.open: _Run | None = None
        self.shapes: dict[int, Shape] = {}
        self.layouts: dict[type, Layout] = {}

    @property
    def histories(self) -> list[History]:
        return [s.cell.history for s in set_of(self.owner.values())]


def set_of(segments: Any) -> list[_Segment]:
    return list({id(s): s for s in segments}.values())


class Chain:
    """Block number ``index`` of a site that consists of blocks in a row.

    At a computed step it watches which blocks are joined: a block whose inputs are, as objects, the outputs of the one before
    continues the run; anything else (a ControlNet's addition, a reshape between spatial and temporal blocks) begins a new one.
    Each run is then one function from its entry to its exit. On a reuse step all blocks of a run hand their inputs on and the
    last one puts in the estimate.
    """

    def __init__(self, site: Site, index: int, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.index, self.policy, self.rank = site, index, policy, RANKS[site.kind]
        self.block = site.modules[index]
        self.signature = signatures[self.block]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE:
            return proceed(args, kwargs)
        state = p.chain(self.policy, self.site)
        bound = self.signature.bind(args, kwargs)
        if p.reuses(self.policy):
            segment = state.owner.get(self.index)
            # Inside a segment the first block has already found it ready.
            if segment is not None and (self.index != segment.first or segment.cell.ready(p.lag)):
                out = self._reuse(p, state, segment, bound)
                if out is not None:
                    return out
        out = self._compute(p, state, proceed, args, kwargs, bound)
        p.count("computed")
        return out

    def _reuse(self, p: Pass, state: ChainState, segment: _Segment, bound: Mapping[str, Any]) -> Any:
        if self.index != segment.last:
            layout = state.layouts.get(type(self.block))
            if layout is None:
                return None
            p.count("reused")
            return state.shapes[self.index].fill(layout.read(bound))
        p.count("reused")
        # The stream as it arrives here: what entered the segment, and whatever was added since the segment was learned.
        return state.shapes[self.index].fill(segment.cell.estimate(p, self.policy, segment.layout.read(bound)))

    def _compute(
        self, p: Pass, state: ChainState, proceed: Proceed, args: Args, kwargs: Mapping[str, Any], bound: Mapping[str, Any]
    ) -> Any:
        if p.forced is not None:
            return proceed(args, kwargs)
        if not state.ran:
            p.on_finish(lambda: self._finish(p, state))
        state.ran.add(self.index)
        run = state.open
        joined = run is not None and run.last == self.index - 1 and not run.written
        if run is not None and joined and type(self.block) is type(self.site.modules[run.last]):
            layout = layout_by_identity(run.outputs, bound)
            if layout is not None:
                state.layouts[type(self.block)] = layout
            else:
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
        state.shapes[self.index] = Shape(out)
        found = tensors_of(out)
        run.outputs = own(found) if self.index in state.copied_outputs else found
        run.output_copies = tuple(_blind_copies(state, dict(enumerate(run.outputs))).values())
        run.last, run.last_bound, run.output_versions = self.index, bound, versions(run.outputs)
        return out

    def _close(self, p: Pass, state: ChainState) -> None:
        """The watched run is over: learn it as one function."""
        run, state.open = state.open, None
        if run is None:
            return
        if run.written:
            state.copied_outputs.add(run.last)  # too late for this step: its value is gone
            return
        layout = state.layouts.get(type(self.site.modules[run.last]))
        if layout is None or len(layout.names) != len(run.outputs):
            layout = layout_by_shape(run.outputs, run.last_bound)
        if layout is None or any(not isinstance(run.bound.get(n), torch.Tensor) for n in layout.names):
            p.trace.note(
                f"block {run.last} of {self.site.name} is always computed: which of its inputs its output continues is not clear."
            )
            return
        before = state.owner.get(run.first)
        same = before is not None and (before.first, before.last, before.layout) == (run.first, run.last, layout)
        segment = before if same and before is not None else _Segment(run.first, run.last, layout, Cell())
        entry = layout.read(run.bound)
        if self.policy.how.needs_input and run.entry_written(layout.names):
            state.copied_inputs.add(run.first)
            return
        if self.policy.how.needs_input and any(a.shape != b.shape for a, b in zip(entry, run.outputs, strict=True)):
            p.trace.note(f"block {run.last} of {self.site.name} is always computed: it changes the shape of its stream.")
            return
        segment.cell.learn(p, self.policy, entry, run.outputs)
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


class RegionState:
    """Of one region in one branch: the shapes of its modules' outputs, and which of them was called last (the exit).

    What comes after the exit may write to its output (FreeU does), so it is copied before the pass goes on.
    """

    __slots__ = ("cell", "exit", "last", "shapes", "value", "watch")

    def __init__(self) -> None:
        self.cell = Cell()
        self.shapes: dict[nn.Module, Shape] = {}
        self.exit: nn.Module | None = None  # known after the first computed pass
        self.last: nn.Module | None = None  # of this pass
        self.value: Tensors = ()
        self.watch = Lent()


class Region:
    """A module of a region: passed over by a stand-in when the region is reused, unless it is the exit."""

    def __init__(self, site: Site, index: int, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.policy, self.rank = site, policy, RANKS[site.kind]
        self.module = site.modules[index]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is Decision.COMPUTE:
            return proceed(args, kwargs)
        state = p.region(self.policy, self.site)
        if p.reuses(self.policy) and self.module in state.shapes and state.cell.ready(p.lag):
            p.count("reused")
            shape = state.shapes[self.module]
            return shape.fill(state.cell.estimate(p, self.policy, ())) if self.module is state.exit else shape.stand_in()
        out = proceed(args, kwargs)
        if p.forced is None:
            if state.last is None:
                p.on_finish(lambda: self._finish(p, state))
            state.shapes[self.module] = Shape(out)
            state.last, state.value = self.module, ()
            if state.exit is None or state.exit is self.module:
                state.value = own(tensors_of(out))
                state.watch.watch(tensors_of(out))
        p.count("computed")
        return out

    def _finish(self, p: Pass, state: RegionState) -> None:
        value, state.value = state.value, ()
        state.exit, state.last = state.last if value else None, None
        state.cell.lent.always_copy |= state.watch.spoiled()  # what is written to now will be when it is lent, too
        state.watch.watch(())
        if value:
            state.cell.learn(p, self.policy, (), value)
        else:
            state.cell.history = ()  # another module than before was the last: its value is learned next time


class Watch:
    """Shows a selector what happens at a site on computed steps."""

    rank = 5

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.policy, self.signature = site, policy, signatures[site.modules[0]]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        out = proceed(args, kwargs)
        if p.forced is None and not p.reuses(self.policy) and self.policy.which is not None:
            state = p.selector_state(self.policy)
            state = self.policy.which.observe(state, self.site, self.signature.bind(args, kwargs), out)
            p.set_selector_state(self.policy, state)
        return out


class Check:
    """Compares, at one site, what the estimates inside it lead to with what computing it gives, on the same input."""

    rank = 3

    def __init__(self, site: Site, trigger: Trigger):
        self.site, self.trigger = site, trigger

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        draft = proceed(args, kwargs)
        if p.forced is None and p.checks(self.trigger):
            with p.nested(Decision.COMPUTE):
                truth = proceed(args, kwargs)
            pairs = zip(tensors_of(draft), tensors_of(truth), strict=True)
            p.report_error(self.trigger, torch.stack([relative_change(a, b).max() for a, b in pairs]).max())
        return draft


class Probe:
    """Measures the signals that can be read at the first block, and so lets the triggers that wait for them decide."""

    rank = 1

    def __init__(self, block: nn.Module, signatures: Mapping[nn.Module, Signature]):
        self.block, self.signature = block, signatures[block]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is None:
            p.measure("stack", self.block, self.signature.bind(args, kwargs))
        return proceed(args, kwargs)
