"""One plan attached to one model: the only object that changes.

A session leads each step: rehearsals, the pass itself, checks, and the correction. Its hooks are the attachment's, its runs are
sorted by ``runs.py``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from omnicache.errors import is_out_of_memory, warn
from omnicache.models.map import ModelMap, Site
from omnicache.plan import Plan
from omnicache.policy import Decision, Tensors
from omnicache.runtime.ahead import Ahead
from omnicache.runtime.attachment import Attachment
from omnicache.runtime.audience import Audience
from omnicache.runtime.branch import BranchState
from omnicache.runtime.call import Call
from omnicache.runtime.caller import callers, frames, holds
from omnicache.runtime.clock import Clock, Inputs
from omnicache.runtime.evaluation import Pass, active, chained, get_or_make
from omnicache.runtime.executors import Role
from omnicache.runtime.guided import Halving
from omnicache.runtime.ranks import Ranks
from omnicache.runtime.run import Run
from omnicache.runtime.runs import Runs
from omnicache.runtime.sampling import exchanged, lagging
from omnicache.runtime.streams import Args, Signature, rebuild, tensors_of
from omnicache.runtime.trace import Record, Trace
from omnicache.sampler import described


class Session:
    """A plan attached to a denoiser. Made by ``omnicache.enable`` and ``omnicache.cache``.

    Args:
        model: what was found in the denoiser.
        plan: what to do.
        pipe: the pipeline whose scheduler is the clock of loops that no pipeline runs; None for a bare denoiser.
        group: the processes that share each sequence, where the model does not say it itself; see ``runtime/ranks.py``.
    """

    def __init__(self, model: ModelMap, plan: Plan, pipe: Any = None, group: Any = None):
        self.model, self.plan, self.group = model, plan, group
        self.notes: list[str] = []
        self.signals = tuple(dict.fromkeys(s for t in plan.triggers for s in t.signals))
        self.by_site = frozenset(id(p) for p in plan.policies if p.when.by_site)
        self.proven: set[tuple[int, Site]] = set()
        self.distrusted: set[tuple[int, Site]] = set()
        self.halving = Halving()
        self.audience = Audience(plan, pipe, self._stepping, self._stepped)
        self.ahead = next((Ahead(self, p) for p in plan.policies if p.ahead > 1), None)
        self.runs = Runs(self)
        self.attached = Attachment(model, plan)
        self.notes += self.attached.absent
        self._signature = Signature(model.model)
        self._gone = False
        try:
            self.audience.listen(pipe, wanted=True)
            self.attached.attach(self._denoise, lambda roles: functools.partial(self._visit, roles))
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Remove every hook and free everything. Safe to call twice, and while other threads are in a run: see ``_denoise``."""
        self._gone = True
        self.attached.remove()
        self.audience.leave()
        self.runs.end_all()

    # --- what is told --------------------------------------------------------------------------------------------------

    def _say(self, sentence: str) -> None:
        """A note for every run from now on, and once a warning."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            warn(f"OmniCache ({self.plan.method}): {sentence}")

    def begin(self, clock: Clock | None) -> Run:
        """A new run, with a look at what has changed since the last one."""
        for sentence in self.attached.look():
            self._say(sentence)
        run = Run(self, clock)
        self._compare(run)
        return run

    def _compare(self, run: Run) -> None:
        """Say what is otherwise than when the plan was calibrated."""
        if not self.plan.made_for:
            return
        told = [names for _, names in frames(self.model.model)]
        for name, then in self.plan.made_for.items():
            if name == "scheduler":
                self._differs(run, name, then, described(run.clock.scheduler) if run.clock is not None else then)
                continue
            now = next((names[name] for names in told if name in names), None)
            if name == "num_inference_steps" and any(t.misfit(now) for t in self.plan.triggers if isinstance(now, int)):
                continue  # said, and nothing is reused
            if isinstance(now, (int, float)) and isinstance(then, (int, float)):
                self._differs(run, name, then, now)

    def _differs(self, run: Run, name: str, then: Any, now: Any) -> None:
        """Say so if it does."""
        if now != then and run.disabled is None:
            sentence = f"The plan was calibrated with {name}={then}, and this run has {now}: what was measured does not hold."
            self._say(sentence)
            run.trace.note(sentence)

    def compare_latents(self, run: Run, call: Call) -> None:
        """Say if they are of another size than when the plan was calibrated."""
        then = self.plan.made_for.get("latents")
        if then is not None and call.latents:
            self._differs(run, "latents", tuple(then), call.latents)

    def _stepping(self, clock: Clock, inputs: Inputs) -> Inputs:
        """Before every scheduler step."""
        run = self.runs.under(clock)
        if run is None:
            return inputs
        with run.busy:
            return exchanged(run, inputs)

    def _stepped(self, clock: Clock) -> None:
        """After every scheduler step."""
        if why := self.attached.bypassed():
            self.runs.last = None  # the trace is not to show the run before this one
            self._say(why)
        self.runs.stepped(clock)
        for pipe, its_clock in self.audience:
            if its_clock is clock and not holds(pipe, self.model.model):
                self._say(
                    f"Nothing was reused: the pipeline's {type(self.model.model).__name__} was replaced after it was enabled. "
                    "Call omnicache.disable(pipe), and enable it again."
                )

    @property
    def begun(self) -> int:
        """How many runs there were, with that in progress."""
        return self.runs.begun

    @property
    def trace(self) -> Trace:
        """The newest run's."""
        run = self.runs.newest()
        if run is not None:
            run.explain()
        return run.trace if run is not None else Trace(self.plan.method, notes=list(self.notes))

    def bytes(self) -> int:
        """Bytes held now, over all runs."""
        return sum(run.bytes() for run in self.runs)

    # --- calls ---------------------------------------------------------------------------------------------------------

    def _visit(self, roles: tuple[Role, ...], call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        """The hook of every governed module inside the denoiser."""
        p = active.get()
        if p is None or p.session is not self:
            return call(*args, **kwargs)
        return chained(p, roles, call)(args, kwargs)

    def _denoise(self, plain: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        """The hook of the denoiser itself."""
        current = active.get()
        if (current is not None and current.session is self) or (not self.plan.policies and not self.audience):
            return plain(*args, **kwargs)
        pipe = next(callers(self.model.model), None)
        if self.audience.leaves_out(pipe):
            return plain(*args, **kwargs)
        call = Call(plain, args, kwargs, self._signature)
        run = self.runs.of(pipe, call)
        began = time.perf_counter()
        try:
            with run.busy:
                record, out = self._lead(run, call)
        except BaseException as problem:
            self.runs.end(self.runs.key(pipe))
            run.free()
            if self._gone and isinstance(problem, Exception):
                return call.uncached()
            raise
        if self._gone:  # another thread has disabled it, and some of the hooks may have been gone already
            run.free()
            return call.uncached()
        run.trace.add(record, time.perf_counter() - began, run.on_host)
        return out

    def _lead(self, run: Run, call: Call) -> tuple[Record, Any]:
        """One step. If memory runs out in it, what the cache holds may be why: then without a cache, to the end of the run."""
        step = run.step(call)
        branch = run.state_of(step, call)
        record = Record(replace(step, latent=branch.latent) if branch.latent is not None else step)
        call = lagging(run, call)
        try:
            out, full = self._evaluate(run, branch, record, call), False
        except Exception as problem:
            if run.disabled is not None or run.ranks or not is_out_of_memory(problem):
                raise  # of several ranks the others would not compute with this one
            out, full = None, True
        if full:  # not in the handler, which holds on to all that the pass held
            run.give_up("memory ran out, and what was kept is freed")
            record.begin_anew()
            out = self._evaluate(run, branch, record, call)
        run.evaluated(record, branch)
        return record, out

    def passed(self, p: Pass, call: Call) -> Any:
        """The model's output in a pass, through what is to be done at the model itself."""
        return chained(p, self.attached.root_roles, call.plain)(call.args, call.kwargs)

    def _evaluate(self, run: Run, branch: BranchState, record: Record, call: Call) -> Any:
        """One step: what was evaluated ahead, or rehearsals, the pass itself and checks; and the correction."""
        if run.disabled is not None:  # nothing will be reused, so nothing is kept
            record.computed = 1
            return call.uncached()
        out = self.ahead.answer(run, branch, record, call) if self.ahead is not None else None
        if self.ahead is not None and out is not None:
            return self._corrected(run, branch, record, out, acted={id(self.ahead.policy)})

        def once(forced: Decision | None = None, lag: int = 0, into: Record = record) -> tuple[Pass, Any]:
            p = Pass(run, branch, into, forced, lag)
            if forced is None and self.signals:
                p.measure("denoiser", self.model.model, call.bound)
            return p, through(p, call) if run.guided is None else run.guided(p, call, through)

        def through(p: Pass, call: Call) -> Any:
            return p.evaluate(lambda: self.passed(p, call))

        rehearsed = self._rehearse(run, branch, record, once)
        p, out = self._proved(run, record, once)
        if self._fails_checks(run, p, record):
            p, out = self._proved(run, record, once)
        if record.computed and not record.reused and not record.partial and len(run.here) == 1:
            run.was_computed(record.step, but=p.awaits)  # history that was lost has forced it
        return self._corrected(run, branch, record, out, p.acted, rehearsed)

    def _rehearse(self, run: Run, branch: BranchState, record: Record, once: Callable[..., tuple[Pass, Any]]) -> Tensors:
        """The outputs that a corrector wants to see before a step is computed; none where the history is too short for one."""
        fixing = self.plan.fixing
        if fixing is None or fixing.fix is None or fixing.when.signals or branch.blank:
            return ()
        if run.triggers[fixing.when].decide(record.step, {}) is not Decision.COMPUTE:
            return ()
        outs = []
        for lag in fixing.fix.rehearse(record.step):
            trial = Record(record.step)
            _, out = once(Decision.REUSE, lag, trial)
            if not trial.reused or trial.computed:
                return ()
            outs.append(tensors_of(out)[0])
            record.rehearsals += 1
        return tuple(outs)

    def _corrected(self, run: Run, branch: BranchState, record: Record, out: Any, acted: set[int], rehearsed: Tensors = ()) -> Any:
        """The output after the corrector, which learns from computed ones. ``acted``: the policies (by id) that have reused."""
        fixing = self.plan.fixing
        if fixing is None or fixing.fix is None:
            return out
        fix, tensors = fixing.fix, tensors_of(out)
        state = get_or_make(branch.correctors, fix, fix.init)
        if branch.corrects is None:
            branch.corrects = tensors[0].nbytes if run.keeper.window.rehearses else 0
        if id(fixing) in acted:
            run.acted = record.step.index
            return rebuild(out, (fix.apply(state, record.step, tensors[0]), *tensors[1:]))
        branch.correctors[fix] = fix.learn(
            state, record.step, tensors[0], rehearsed
        )  # others may have, inside of what was computed
        return out

    def _proved(self, run: Run, record: Record, once: Callable[[], tuple[Pass, Any]]) -> tuple[Pass, Any]:
        """A pass, with a look at the first reuse of sites that consist of several modules: see ``Pass.proves``."""
        p, out = once()
        proving = set(p.proving)
        if not proving:
            return p, out
        if _finite(out, run.ranks) and not p.disturbed:
            self.proven |= proving
            return p, out
        run.was_computed(record.step)
        record.begin_anew()
        if p.disturbed:  # the blocks are joined otherwise now than when they were learned: learn them anew, prove them next time
            return once()
        self.distrusted |= proving
        p, out = once()
        if not _finite(out, run.ranks):  # the model itself gives NaN, and nothing is proved
            self.distrusted -= proving
        else:
            self.proven |= proving
            for _, site in proving:
                run.trace.note(
                    f"What modules inside {site.name} return is read outside of it, too: "
                    + ("its blocks are reused one by one." if site.layout == "chain" else "it is always computed.")
                )
        return p, out

    def _fails_checks(self, run: Run, p: Pass, record: Record) -> bool:
        """Tell the triggers what was measured of their estimates. Whether the step must be evaluated anew."""
        redo = False
        for trigger, state in run.triggers.items():
            if trigger.check is None or state.decision is not Decision.CHECK:
                continue
            error = float(p.errors[trigger]) if trigger in p.errors else float("nan")
            record.checked, record.error = True, error
            good, state.state = trigger.observe(state.state, state.moment, error)
            if not good and trigger.redo:
                state.settle(Decision.COMPUTE)
                redo = True
        if redo:
            record.begin_anew()
            record.checked, record.redone = False, True
        return redo


def _finite(out: Any, ranks: Ranks) -> bool:
    """On all ranks."""
    found = [t for t in tensors_of(out) if t.is_floating_point()]
    return not ranks.any(not all(bool(torch.isfinite(t).all()) for t in found), found[0].device) if found else True
