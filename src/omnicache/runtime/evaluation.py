"""One evaluation of the model, and what the executors talk to while it runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnicache.models.map import Site
from omnicache.policy import Chosen, Columns, Decision, Policy, Rows, Signal, Tensors, Trigger
from omnicache.runtime.branch import BranchState
from omnicache.runtime.executors import Cell, ChainState, RegionState, Role
from omnicache.runtime.hook import standing_in
from omnicache.runtime.run import Run
from omnicache.runtime.seen import RETURNED, STEP, moving
from omnicache.runtime.store import own
from omnicache.runtime.streams import Args, Layout, Shape
from omnicache.runtime.trace import Record

if TYPE_CHECKING:
    from omnicache.runtime.halves import Witness

active: ContextVar[Pass | None] = ContextVar("omnicache_pass", default=None)
"""The evaluation in progress, for the hooks inside the model."""


class Pass:
    """One evaluation of the model. ``forced`` overrides all decisions: REUSE for rehearsals, COMPUTE for honest checks.

    ``copies``: how many times as large as the batch of what is kept this one is.
    """

    __slots__ = (
        "_calls",
        "_decided",
        "_finish",
        "_fresh",
        "_signals",
        "acted",
        "awaits",
        "blocks",
        "branch",
        "chosen",
        "copies",
        "disturbed",
        "entered",
        "errors",
        "forced",
        "lag",
        "proving",
        "record",
        "run",
        "segment",
        "session",
        "step",
        "trace",
        "witness",
    )

    def __init__(
        self, run: Run, branch: BranchState, record: Record, forced: Decision | None = None, lag: int = 0, copies: int = 1
    ):
        self.run, self.branch, self.record, self.forced, self.lag, self.copies = run, branch, record, forced, lag, copies
        self.session, self.step, self.trace = run.session, record.step, run.trace
        self.proving: set[tuple[int, Site]] = set()
        self.segment: Any = None  # the run of blocks that is being passed over
        self.disturbed = False  # whether the proof has met something that was added between two blocks
        self.errors: dict[Trigger, torch.Tensor] = {}
        self.acted: set[int] = set()  # the policies (by id) that took something from what is kept
        self.awaits: Trigger | None = None  # what it decided is up to a later call of this step
        self.witness: Witness | None = None  # sees what is learned
        self._signals = {s: run.told(s) for s in run.session.signals if s.at == "site"}
        self._fresh: list[
            tuple[BranchState, Signal, nn.Module, Tensors]
        ] = []  # to compare with from now on, if this step is computed
        self.entered: torch.Tensor | None = None  # what the first block was given
        self._finish: list[Callable[[], None]] = []
        self._decided: dict[int, Decision] = {}
        self._calls: dict[Any, int] = {}
        self.blocks: dict[str, torch.Tensor] = {}  # what the blocks that are running were given
        self.chosen: dict[str, dict[Any, Chosen | None]] = {}  # of those, for all of their sites

    def decision(self, trigger: Trigger) -> Decision:
        if self.forced is not None:
            return self.forced
        state = self.run.triggers[trigger]
        if state.decided != self.step.index and any(s not in self._signals for s in trigger.signals):
            return Decision.COMPUTE  # what comes before the watched block; the trigger is asked when there is something to see
        return state.decide(self.step, self._signals)

    def reuses(self, policy: Policy, site: int = 0) -> bool:
        """Whether site number ``site`` of a policy is reused, if it has something to be reused."""
        key = id(policy)  # hashing a policy at every call of every block would cost more than passing the block
        found = self._decided.get(key)
        if found is None:
            found = self.decision(policy.when)
            if self.forced is not None or self.run.triggers[policy.when].decided == self.step.index:
                self._decided[key] = found
        if found is Decision.COMPUTE:
            return False
        by_site = self.session.by_site
        if not by_site or key not in by_site or self.forced is not None:
            return True
        return policy.when.spares(self.run.triggers[policy.when].state, site)

    def checks(self, trigger: Trigger) -> bool:
        return self.decision(trigger) is Decision.CHECK

    def measure(self, at: str | int, module: nn.Module, bound: Mapping[str, Any]) -> None:
        """Measure the signals that are read at ``at``, and let the triggers decide that know all of theirs.

        A model may have several rows of blocks, and the first may refine the text only: a row whose input has not changed at all
        says nothing, and the next one is asked, down to the last.
        """
        entered, last = self.branch.entered, len(self.session.model.entries) == 1
        for signal in self.session.signals:
            if signal.at != at or self._known(signal):
                continue
            found = signal.probe(module, {**bound, STEP: self.step})
            if found is None:
                self.trace.note(
                    f"{type(module).__name__} has no input for {type(signal).__name__}; its hidden states were watched."
                )
            now = (found,) if found is not None else moving(bound)
            before = self.branch.seen.get((signal, module), ())
            if signal.against == "visited" or not before:
                self.branch.seen[signal, module] = own(now)
            elif signal.against == "computed":
                self._fresh.append((self.branch, signal, module, own(now)))
            change = self._change(signal, now, before)
            if at == "stack" and module not in entered:
                entered.append(module)
            if change is not None and at == "stack" and not last and module is not entered[-1] and not bool(change.any()):
                continue
            self._signals[signal] = change
        self.record.signals = dict(self._signals)
        for trigger in self.session.plan.triggers:
            if all(s in self._signals for s in trigger.signals):
                self.decision(trigger)

    def _change(self, signal: Signal, now: Tensors, before: Tensors) -> torch.Tensor | None:
        """How much has changed on all ranks together, one number a sample; None, or NaN among several ranks, if not known."""
        ranks = self.run.ranks
        before = now if signal.against == "nothing" else before
        if now and [(t.shape, t.dtype) for t in now] == [(t.shape, t.dtype) for t in before]:
            sums = [signal.sums(a, b) for a, b in zip(now, before, strict=True)]
        elif now and ranks:  # the others may know theirs, and wait for this one's
            sums = [torch.full_like(signal.sums(a, a), torch.nan) for a in now]
        else:
            return None
        changes = [signal.change(s) for s in ranks.total(sums)]
        return changes[0] if len(changes) == 1 else torch.stack([c.amax() for c in changes]).amax()[None]

    def _known(self, signal: Signal) -> bool:
        """Whether a signal need not be looked for further down. Waits for the device where there are several ranks and rows."""
        found = self._signals.get(signal)
        return found is not None and not (self.run.ranks and bool(found.isnan().any()))

    def tell(self, signal: Signal, module: nn.Module, out: Any, site: int, sites: int) -> None:
        """Measure a signal on what a module, that of site number ``site``, has returned, for the steps to come."""
        found = signal.probe(module, {RETURNED: out, STEP: self.step})
        now = () if found is None else (found,)
        told = get_or_make(self.branch.told, signal, lambda: [None] * sites)
        told[site] = self._change(signal, now, self.branch.seen.get((signal, module), ()))
        if signal.against != "nothing":
            self.branch.seen[signal, module] = own(now)

    def settle(self) -> None:
        """Triggers whose signals did not show up in the whole pass decide without them: to compute. What a computed step has
        shown is what later ones are compared with."""
        for trigger, state in self.run.triggers.items():
            if self.forced is None and state.decided != self.step.index:
                state.decide(self.step, self._signals)
                missing = [type(s).__name__ for s in trigger.signals if s not in self._signals]
                if missing:
                    self.trace.note(f"{', '.join(missing)} was not to be seen in some steps, which were computed.")
        computed = [t for t, state in self.run.triggers.items() if state.decision is Decision.COMPUTE]
        for branch, signal, module, now in self._fresh:
            if any(signal in t.signals for t in computed):
                branch.seen[signal, module] = now

    def proves(self, policy: Policy, site: Site) -> bool:
        """Whether this is the first reuse of a site made of several modules, which proves that nobody outside reads what the
        inner ones hand on: they hand on NaN, and the model's output must be finite all the same."""
        key = (id(policy), site)
        if self.forced is not None or key in self.session.proven:
            return False
        self.proving.add(key)
        return True

    def bars(self, site: Site) -> bool:
        """Whether a site must run at every step: somebody reads what its modules keep, or there is no room to keep its values."""
        barred, left = self.session.attached.barred, self.run.keeper.thrift.left
        return (bool(barred) and site in barred) or (bool(left) and site in left)

    def distrusts(self, policy: Policy, site: Site) -> bool:
        """Whether that proof has failed."""
        return (id(policy), site) in self.session.distrusted

    def turn(self, role: Role) -> Hashable:
        """Which call of this role in this pass this is: some models call a module several times, each on another stream.

        Inside another role it is counted anew at each of that one's turns, since at some of them this role may not be called.
        """
        place = self._place(role)
        found = self._calls.get(place, 0)
        self._calls[place] = found + 1
        return found if role.outer is None else (place[1:], found)

    def _place(self, role: Role) -> Any:
        if role.outer is None:
            return id(role)
        outer = self._place(role.outer)
        return id(role), self._calls.get(outer, 0), outer

    def take_turns(self, roles: Iterable[Role], first: Mapping[int, int]) -> None:
        """The same for many roles that were passed over. ``first``: what their first turns come to, by id; empty if not known."""
        if first and self._calls.keys().isdisjoint(first):
            self._calls.update(first)
        else:
            for role in roles:
                self.turn(role)

    def cell(self, policy: Policy, site: Site, turn: Hashable) -> Cell:
        return get_or_make(self.branch.cells, (id(policy), site, turn), lambda: Cell(policy, site))

    def chain(self, policy: Policy, site: Site, turn: Hashable) -> ChainState:
        return get_or_make(self.branch.chains, (id(policy), site, turn), ChainState)

    def region(self, policy: Policy, site: Site, turn: Hashable) -> RegionState:
        return get_or_make(self.branch.regions, (id(policy), site, turn), lambda: RegionState(policy, site))

    @property
    def shapes(self) -> dict[tuple[Site, Hashable], tuple[Shape, Layout | None]]:
        return self.branch.shapes

    def selector_state(self, policy: Policy) -> Any:
        assert policy.which is not None
        return get_or_make(self.branch.selectors, policy, policy.which.init)

    def set_selector_state(self, policy: Policy, state: Any) -> None:
        self.branch.selectors[policy] = state

    def choose(self, policy: Policy, site: Site, rows: Rows) -> Chosen | None:
        """The rows of a site that its policy's selector chooses: once for all sites of a block, and once for all calls of a step,
        where it says so."""
        which = policy.which
        assert which is not None
        name = f"blocks {site.layer // which.shared}" if which.shared > 1 else site.block if which.shared else site.name
        about = (id(policy), rows.x.shape[:2], rows.grid, rows.together, site.kind == "cross_attention")
        known = self.chosen.setdefault(name, {}) if which.shared else {}
        if about in known:
            return known[about]
        nth = self._calls[name] = self._calls.get(name, 0) + 1  # some models call a block several times
        agreed = self.run.agreed.get((name, nth, about)) if which.aligned else None
        if agreed is not None and agreed[0] == self.step.index:
            found = agreed[1]
        else:
            found, state = which.choose(self.selector_state(policy), site, self.step, rows)
            self.set_selector_state(policy, state)
            if which.aligned and len(self.run.branches) > 1:
                self.run.agreed[name, nth, about] = self.step.index, found
        known[about] = found
        return found

    def pick(self, policy: Policy, site: Site, columns: Columns) -> torch.Tensor | None:
        """The columns of a site that its policy's selector chooses."""
        assert policy.which is not None
        found, state = policy.which.pick(self.selector_state(policy), site, self.step, columns)
        self.set_selector_state(policy, state)
        return found

    def computes(self, proceed: Callable[[Args, Mapping[str, Any]], Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
        """A module that runs whatever the policies say; it counts as computed, unless the whole pass is forced."""
        if self.forced is None:
            self.count("computed")
        return proceed(args, kwargs)

    def count(self, what: str, policy: Policy | None = None) -> None:
        """One more module computed, partial or reused, the latter two by this policy."""
        if policy is not None:
            self.acted.add(id(policy))
        setattr(self.record, what, getattr(self.record, what) + 1)

    def report_error(self, trigger: Trigger, error: torch.Tensor) -> None:
        self.errors[trigger] = error

    def on_finish(self, action: Callable[[], None]) -> None:
        """Done when the model has returned: learning what can only be learned from the whole pass."""
        self._finish.append(action)

    @contextlib.contextmanager
    def nested(self, forced: Decision) -> Iterator[None]:
        """A stretch of this pass under a forced decision, in which nothing is learned."""
        inner = Pass(self.run, self.branch, Record(self.step), forced)
        token, over = active.set(inner), standing_in.set(None)
        try:
            yield
        finally:
            standing_in.reset(over)
            active.reset(token)

    def beside(self, branch: BranchState) -> Pass:
        """Another pass for the same step, with memory and a record of its own."""
        return Pass(self.run, branch, Record(self.step))

    def evaluate(self, proceed: Callable[[], Any]) -> Any:
        token, over = active.set(self), standing_in.set(None)
        try:
            out = proceed()
            self.settle()
            for action in self._finish:
                action()
            return out
        finally:
            self._finish.clear()  # they hold this pass, and it holds them
            standing_in.reset(over)
            active.reset(token)


def chained(p: Pass, roles: tuple[Role, ...], call: Callable[..., Any]) -> Callable[[Args, Mapping[str, Any]], Any]:
    """The roles on one module from the outermost to the module itself, as one function."""

    proceed: Callable[[Args, Mapping[str, Any]], Any] = lambda args, kwargs: call(*args, **kwargs)  # noqa: E731
    for role in reversed(roles):  # no function may refer to itself here: such cycles would keep tensors until they are collected
        proceed = functools.partial(role, p, proceed)
    return proceed


def get_or_make(table: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    found = table.get(key)
    if found is None:
        found = table[key] = make()
    return found
