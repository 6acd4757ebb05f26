"""One denoising run: its place in time, its guidance branches, and what each of them keeps."""

from __future__ import annotations

import math
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch

from omnicache.errors import warn
from omnicache.models.latent import latent_of
from omnicache.policy import Chosen, Corrector, Decision, Signal, Trigger
from omnicache.runtime.branch import BranchState
from omnicache.runtime.call import TIMES, Call
from omnicache.runtime.clock import Clock
from omnicache.runtime.decisions import TriggerState
from omnicache.runtime.guided import Guided
from omnicache.runtime.keeper import Keeper
from omnicache.runtime.ranks import ranks_of
from omnicache.runtime.step import Step
from omnicache.runtime.store import held_bytes
from omnicache.runtime.streams import tensors_of
from omnicache.runtime.trace import Record, Trace
from omnicache.runtime.window import Window

if TYPE_CHECKING:
    from omnicache.runtime.session import Session

branch_name: ContextVar[str | None] = ContextVar("omnicache_branch", default=None)
"""The name that a pipeline gives the call in progress, where it gives one."""


class Run:
    """One denoising run: its place in time, its branches, its trace."""

    def __init__(self, session: Session, clock: Clock | None):
        plan = session.plan
        self.session, self.clock = session, clock
        self.ranks = ranks_of(session.model.model, session.group)  # anew: the model may have been split after it was enabled
        self.clock_run = clock.run if clock else 0
        self.start: int | None = None
        self.tells = False  # whether the model is given the times that the scheduler lists
        self.now: float | None = None
        self.count = -1  # steps seen without a scheduler
        self.upward = False  # without a scheduler: whether times rise along a run, as in some flow models
        self.lone_before = 0  # runs of a single step just before this one
        self.checked = False
        self.at = -1  # index of the step in progress
        self.here: list[str | int] = []  # branches evaluated at it so far
        self.branches: dict[str | int, BranchState] = {}
        self.agreed: dict[Any, tuple[int, Chosen | None]] = {}  # what selectors chose for all branches of a step, and the step
        self.correctors: dict[Corrector, Any] = {}  # states of those that act at the sampler
        self.acted = -1  # index of the step at which the corrected policy has last reused anything
        remembered = {p.when for p in plan.policies if p.how.remembers and not (p.which is not None and p.which.fills)}
        self.triggers = {t: TriggerState(t, t not in remembered) for t in plan.triggers}
        self.trace = Trace(plan.method)
        self.disabled: str | None = None
        self.busy = threading.RLock()  # held during a step: nobody frees what it reads
        self.trace.notes += session.notes
        self.keeper = Keeper(plan.policies, plan.guards)
        between, pools = session.attached.guidance, any(p.how.pools is not None for p in plan.policies)
        self.guided = Guided(between, pools) if between is not None or pools else None
        self.on_host = True  # whether the model runs in the host's memory

    def step(self, call: Call) -> Step:
        """The step that this call of the denoiser belongs to. Reads the timestep from the device at most once a run, if there
        is a scheduler; without one, at every call."""
        clock = self.clock
        if clock is None:
            now = call.time
            if self.count < 0 or now is None or now != self.now:
                self.count, self.now = self.count + 1, now
            index, total, when, sigma = self.count, None, now, None
        else:
            if self.start is None:
                now = call.time
                self.start = max(clock.place(now) - clock.taken, 0)
                self.tells = now is not None and clock.shows(self.start, now)
                clock.began = self.start
            index, total = clock.taken, len(clock.times) - self.start if clock.times else None
            when, sigma = self._listed(clock, index)
        step = Step(index, total, when, sigma, self._branch(index, call), clock is not None and clock.flow)
        if not self.checked:
            self.checked = True
            self._fits(total, clock is None and when is None)
            self._look_ahead(step)
        return step

    def _listed(self, clock: Clock, index: int) -> tuple[float | None, float | None]:
        """The time and the noise level that the scheduler lists for a step of this run."""
        at = (self.start or 0) + index
        return clock.times[at] if at < len(clock.times) else None, clock.sigmas[at] if at < len(clock.sigmas) else None

    def place(self, index: int, branch: str | int = 0) -> Step:
        """A step of this run as its scheduler lists it; there must be one."""
        assert self.clock is not None
        total = len(self.clock.times) - (self.start or 0) if self.clock.times else None
        return Step(index, total, *self._listed(self.clock, index), branch, self.clock.flow)

    def _look_ahead(self, step: Step) -> None:
        """Find out what is to come from ``step`` on; it lies ahead itself, unless it has been decided."""
        clock, steps = self.clock, []
        if clock is not None and self.start is not None and step.total is not None and self.disabled is None:
            begun = any(t.decided == step.index for t in self.triggers.values())
            steps += [self.place(i, step.branch) for i in range(step.index + begun, step.total)]
        self.keeper.window = Window.after(self.session.plan.policies, self.keeper.how, self.triggers.values(), steps)

    def evaluated(self, record: Record, branch: BranchState) -> None:
        """After every evaluation: let go of what was used for the last time, and stay within the memory that is allowed."""
        step = record.step
        keeper = self.keeper
        for trigger, state in self.triggers.items():
            if keeper.window.foreseen(trigger, step.index) not in (None, state.decision):
                self._look_ahead(step)  # it came otherwise: something was computed that was to be reused
                break
        window = keeper.window
        if step.index in window.lapses:
            for cell in branch.all_cells():
                cell.hold(keeper.keep(cell, cell.history, step))
        if window.closes is not None and step.index >= window.closes:
            branch.forget()
            self.agreed.clear()
        if not record.computed and not record.partial and not branch.ahead:
            return  # nothing new is kept at a step that was wholly reused
        held = self.bytes()
        fits = keeper.settle(self, held)
        trace = self.trace
        trace.thrift, trace.predicted_bytes = str(keeper), max(trace.predicted_bytes, keeper.predicted)
        trace.peak_bytes = max(trace.peak_bytes, self.bytes() if keeper.limit is not None else held)
        if not fits:
            self.give_up(f"what the method itself holds does not fit into {keeper.guards}")

    def give_up(self, why: str) -> None:
        """Let go of everything; the rest of the run is computed."""
        self._stand_back(f"The rest of the run was computed: {why}.")
        self.free()

    def _stand_back(self, sentence: str) -> None:
        self.disabled, self.trace.held_back = sentence, "run"
        self.trace.note(sentence)
        warn(f"OmniCache ({self.session.plan.method}): {sentence}")

    def _branch(self, index: int, call: Call) -> str | int:
        if index != self.at:
            self.at, self.here = index, []
        branch = self._known(call)
        if branch is None or branch in self.here:  # its place among the calls of the step that are not known to be others
            branch = len(self.here) if len(self.here) not in self.here else min(set(range(len(self.here))) - set(self.here))
        self.here.append(branch)
        return branch

    def _known(self, call: Call) -> str | int | None:
        """The branch of a call that says which it is: by its context, or by a condition that was seen before."""
        name = branch_name.get()
        if name is not None:
            return name
        condition = call.condition
        # Guidance that is switched off late leaves one call where there were two: the condition tells which.
        known = [b for b, s in self.branches.items() if s.condition is not None and s.condition() is condition]
        return known[0] if len(known) == 1 and condition is not None else None

    def goes_back(self, now: float | None) -> bool:
        """Without a scheduler: whether ``now`` lies before the step in progress, so that another run has begun.

        Times fall along a run, unless they have risen three times in a row from runs that never got further than one step.
        """
        if now is None or self.now is None or now == self.now:
            return False
        if not self.upward and now > self.now and self.count == 0 and self.lone_before >= 1:
            self.upward = True
        return now < self.now if self.upward else now > self.now

    def again(self, index: int, call: Call) -> bool:
        """Whether a call at ``index`` is of a branch that was evaluated there already: then a step has gone by unnoticed."""
        return index == self.at and self._known(call) in self.here

    def _fits(self, total: int | None, blind: bool) -> None:
        plan = self.session.plan
        if not plan.policies or self.disabled:
            return
        why = next((w for t in plan.triggers if (w := t.misfit(total))), None)
        if why is None and total is not None and total < plan.min_steps:
            why = f"{total} steps are too few for caching: neighbouring steps differ too much"
        if why is None and blind:
            why = (
                "there is no scheduler, and no argument of the model was recognised as its timestep, so where a run begins is "
                f"not to be seen (known names: {', '.join(TIMES)}, and any with 'timestep' in it)"
            )
        if why is None and self.clock is not None:
            why = plan.misfit(self.clock.scheduler)
        if why is not None:
            self._stand_back(f"Nothing was reused: {why}.")
        elif self.clock is None and plan.fixing is not None and plan.fixing.fix is not None and plan.fixing.fix.samples:
            self.trace.note(
                f"{type(plan.fixing.fix).__name__} did nothing at the sampler: no scheduler was seen to make this run's steps. "
                "Pass the pipeline, not its denoiser."
            )

    def explain(self) -> None:
        """Say why nothing was reused, if nothing was and nobody has said so."""
        trace = self.trace
        if trace.thrift:
            trace.wanted_bytes = max(trace.wanted_bytes, self.keeper.unlimited(self))
        if len(trace.records) < 2 or not self.triggers or trace.reused:
            return
        wanted = any(t.wanted for t in self.triggers.values()) and not any(r.redone for r in trace.records)
        if wanted and not trace.held_back:
            trace.held_back = "memory" if self.keeper.thrift.left else "sites"
        if not wanted and not trace.held_back:
            trace.note("Nothing was reused: the plan computed every step.", first=True)
        elif trace.held_back == "sites" and not set(trace.notes) - set(self.session.attached.absent):
            trace.note("Nothing was reused: no module that the plan governs was called in the steps that it would have reused.")

    def was_computed(self, step: Step, but: Trigger | None = None) -> None:
        """Tell the triggers, all ``but`` one, that a step which they wanted to reuse is computed after all."""
        for trigger, state in self.triggers.items():
            if trigger != but and state.decided == step.index and state.decision is not Decision.COMPUTE:
                state.settle(Decision.COMPUTE)

    def told(self, signal: Signal) -> torch.Tensor | None:
        """What modules have shown when they last ran, one number for each sample of all branches, and each site if the signal is
        of each; None if none has yet."""
        known = []
        for branch in (max((b, *b.halves.values()), key=lambda s: s.at) for b in self.branches.values()):
            shown = branch.told.get(signal, [])
            if like := [found for found in shown if found is not None]:
                batch = math.gcd(*map(len, like))  # sites may see a film as sequences of one frame, or of one position
                unknown = torch.full_like(like[0][:batch], torch.nan)
                rows = torch.stack([unknown if found is None else found.view(batch, -1).mean(1) for found in shown])
                known.append(rows if signal.each else rows[0])
        return torch.cat(known, -1) if known else None

    def state_of(self, step: Step, call: Call) -> BranchState:
        state = self.branches.get(step.branch)
        if state is None or state.geometry != call.geometry:
            # A new shape, dtype or device: what was kept is of no use.
            state = self.branches[step.branch] = self.new_state(call)
            self.on_host = all(t.device.type == "cpu" for v in call.bound.values() for t in tensors_of(v))
        return state

    def new_state(self, call: Call) -> BranchState:
        """Nothing kept yet, for calls like this one."""
        state = BranchState(call.geometry)
        self.session.compare_latents(self, call)
        if self.session.plan.needs_grid:
            state.latent = latent_of(self.session.model.model, call.bound)
        state.condition = ref(call.condition) if call.condition is not None else None
        return state

    def stepped(self, handed: torch.Tensor | None) -> None:
        """After a step of its scheduler, by the output ``handed`` to it."""
        if self.guided is not None:
            with self.busy:
                self.guided.settle(handed)

    def bytes(self) -> int:
        """Bytes held on the model's device."""
        states = [t.state for t in self.triggers.values()]
        return held_bytes([b.kept() for b in self.branches.values()], states, self.agreed, self.correctors, host=self.on_host)

    def other_bytes(self) -> int:
        """Those that are not values of sites: of selectors, correctors (at least what they will hold), signals and triggers."""
        states = [t.state for t in self.triggers.values()]
        branches = [s for b in self.branches.values() for s in (b, *b.halves.values())]
        seen = [(b.selectors, b.seen, b.told, b.output, list(map(tensors_of, b.ahead.values()))) for b in branches]
        others = held_bytes(seen, states, self.agreed, self.correctors, host=self.on_host)
        return others + sum(max(held_bytes(b.correctors, host=self.on_host), b.corrects or 0) for b in self.branches.values())

    def free(self) -> None:
        with self.busy:
            if self.guided is not None:
                self.guided.made.clear()
            for branch in self.branches.values():
                branch.free()
            self.branches.clear()
            self.agreed.clear()
            self.correctors.clear()
            for t in self.triggers.values():
                t.state = None
