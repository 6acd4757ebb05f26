"""One plan attached to one model: the only object that changes.

A session puts hooks on modules, sorts the denoiser's calls into runs, and leads each step: rehearsals, the pass itself,
checks, and the correction.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from omnicache.errors import OmniCacheError, is_out_of_memory, warn
from omnicache.models.map import ModelMap, Site
from omnicache.plan import Plan
from omnicache.policy import Decision
from omnicache.runtime.arguments import time_of
from omnicache.runtime.audience import Audience
from omnicache.runtime.branch import BranchState
from omnicache.runtime.caller import callers, frames, holds
from omnicache.runtime.clock import Clock, Tap
from omnicache.runtime.evaluation import Pass, active, chained, get_or_make
from omnicache.runtime.executors import Role
from omnicache.runtime.hook import Hook, is_compiled
from omnicache.runtime.ranks import Ranks
from omnicache.runtime.roles import Roles, around
from omnicache.runtime.run import Run, branch_name
from omnicache.runtime.streams import Args, Signature, rebuild, tensors_of
from omnicache.runtime.trace import Record, Trace

MOST_BRANCHES = 8
SETTINGS = ("_attention_backend", "_parallel_config")
"""What ``set_attention_backend`` and ``enable_parallelism`` of diffusers write into attention processors."""

_request: ContextVar[Any] = ContextVar("omnicache_request", default=None)


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
        self.audience = Audience(plan, pipe, self._stepped)
        self._runs: dict[Any, Run] = {}
        self._hooks: list[Hook] = []
        self._context: Tap | None = None
        self.last: Run | None = None
        self.proven: set[tuple[int, Site]] = set()
        self.distrusted: set[tuple[int, Site]] = set()
        self.barred: set[Site] = set()
        self._keeping: set[nn.Module] = set()
        roles = Roles(plan, model)
        self._governed = roles.governed
        self._signature = Signature(model.model)
        self._root_roles = roles.pop(model.model, ())
        self._around = around(model.model, roles)
        self._gone = False
        try:
            self.audience.listen(pipe, wanted=True)
            self._tap_contexts()
            self._hooks.append(Hook(model.model, self._denoise))
            for module, ordered in roles.items():
                self._hooks.append(Hook(module, functools.partial(self._visit, ordered)))
            if why := self._unseen():
                raise OmniCacheError(why)
        except BaseException:
            self.detach()
            raise

    # --- attaching -----------------------------------------------------------------------------------------------------

    def _tap_contexts(self) -> None:
        """Read the names that pipelines give their calls (``cache_context("cond")``), where they do."""
        model = self.model.model
        if not hasattr(type(model), "cache_context"):
            return

        @contextlib.contextmanager
        def around(plain: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            token = branch_name.set(str(name))
            try:
                with plain(name, *args, **kwargs):
                    yield
            finally:
                branch_name.reset(token)

        model.cache_context = self._context = Tap(model, "cache_context", around)  # type: ignore[assignment]

    def detach(self) -> None:
        """Remove every hook and free everything. Safe to call twice, and while other threads are in a run: see ``_denoise``."""
        self._gone = True
        for hook in reversed(self._hooks):
            hook.remove()
        self._hooks.clear()
        if self._context is not None:
            self._context.remove()
        self.audience.leave()
        for key in list(self._runs):
            self._end(key)

    # --- runs ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def request(self, name: Any) -> Iterator[None]:
        """Calls inside belong to the request ``name``: interleaved requests on one thread keep apart."""
        token = _request.set(name)
        try:
            yield
        finally:
            _request.reset(token)

    def _key(self, pipe: Any) -> Any:
        """What runs are kept apart by: the thread or request, and the pipeline."""
        request = _request.get()
        who = threading.get_ident() if request is None else ("request", request)
        return who, id(pipe if pipe is not None else self.audience.given)

    def _run_for(self, pipe: Any, geometry: Any, bound: Mapping[str, Any]) -> Run:
        """The run that a call belongs to: the current one of this thread or request and pipeline, or a new one."""
        key = self._key(pipe)
        clock = self.audience.listen(pipe if pipe is not None else self.audience.given)
        if clock is not None and (not clock.works_for(key) if _request.get() is None else clock.idle):
            clock = None  # another thread's or loop's scheduler is at work: time this run by its timesteps
        run = self._runs.get(key)
        if run is not None and clock is not None and clock.run == run.clock_run:
            # A step has gone by that this scheduler did not take: some pipelines step copies of theirs.
            again = run.again(clock.taken, bound) and not clock.shows(run.start, time_of(bound))
            # Another scheduler's run after a cancelled one: told by its times, where they can be read without waiting for a device.
            strange = pipe is None and run.tells and not clock.shows(run.start, time_of(bound, on_host=True), slack=1)
            if again or strange:
                clock.strangers.add(key)
                clock = None
        if run is not None:
            if clock is not run.clock or (clock is not None and clock.run != run.clock_run):
                run = None
            elif clock is None:
                now = time_of(bound)
                back = run.goes_back(now)
                anew = run.now == now and run.count == 0 and run.again(0, bound)
                if back or anew or (run.now == now and geometry not in [b.geometry for b in run.branches.values()]):
                    run = None
            elif run.at == clock.taken and len(run.here) >= MOST_BRANCHES:
                run = None
        if run is None:
            lone = self._runs.get(key)
            self._end(key)
            self._drop_cancelled(key)
            self._mend()
            self._bar()
            run = self.last = self._runs[key] = Run(self, clock)
            self._compare(run)
            run.lone_before = lone.lone_before + 1 if lone is not None and lone.count == 0 else 0
        return run

    def _compare(self, run: Run) -> None:
        """Say what is otherwise than when the plan was calibrated."""
        if not self.plan.made_for:
            return
        told = [names for _, names in frames(self.model.model)]
        for name, then in self.plan.made_for.items():
            now = next((names[name] for names in told if name in names), None)
            if name == "num_inference_steps" and any(t.misfit(now) for t in self.plan.triggers if isinstance(now, int)):
                continue  # said, and nothing is reused
            if isinstance(now, (int, float)) and isinstance(then, (int, float)) and now != then:
                self._say(f"The plan was calibrated with {name}={then}, and this run has {now}: what was measured does not hold.")
                run.trace.note(self.notes[-1])

    def _drop_cancelled(self, key: Any) -> None:
        """A run that begins ends the cancelled ones of its thread: those whose pipeline is not at work further up."""
        mine = [k for k in self._runs if k[0] == key[0] and isinstance(k[0], int)]
        if mine:
            at_work = {id(pipe) for pipe in callers(self.model.model)}
            for k in mine:
                if k[1] not in at_work:
                    self._end(k)

    def _mend(self) -> None:
        """Blocks that were compiled after ``enable`` have lost their hook: put it around the compiled call."""
        self._hooks = [hook if hook.in_place else hook.again() for hook in self._hooks]
        if why := self._unseen():
            self._say(why)
        inside = set(self.model.model.modules())
        if lost := sum(hook.module not in inside for hook in self._hooks):
            self._say(
                f"{lost} of {len(self._hooks) - 1} modules that it governs were replaced after it was enabled, and are computed at "
                "every step. Call omnicache.disable(pipe), and enable it again."
            )
        if hook := next((h for h in self._hooks if h.shut_out), None):
            self._say(
                f"{type(hook.module).__name__} was compiled by torch.compile(...) after it was enabled, and runs uncompiled, "
                "because a graph cannot hold hooks. Compile blocks instead: for block in model.transformer_blocks: block.compile()."
            )

    def _bar(self) -> None:
        """Sites with an attention processor that keeps things for the pipeline (attention maps, say) must run at every step."""
        keeping = {m for m in self.model.model.modules() if _keeps(getattr(m, "processor", None))}
        if keeping == self._keeping:
            return
        self._keeping = keeping
        self.barred = {s for s in self._governed if any(keeping.intersection(m.modules()) for m in s.modules)}
        if self.barred:
            kinds = ", ".join(sorted({type(m.processor).__name__ for m in keeping}))
            self._say(f"{len(self.barred)} sites are always computed: their {kinds} keeps things that the pipeline reads.")

    def _unseen(self) -> str | None:
        """Why governed modules cannot be reached, as a sentence: what lies inside a compiled module is part of its graph."""
        outer = next((name for name, module in self._around if is_compiled(module)), None)
        if outer is None:
            return None
        return (
            f"{self.plan.method} caches inside {outer}, which is compiled, and hooks inside a compiled graph do not run. "
            'Cache whole blocks, which can be compiled (granularity="stack" where the method has it), or do not compile them.'
        )

    def _say(self, sentence: str) -> None:
        """A note for every run from now on, and once a warning."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            warn(f"OmniCache ({self.plan.method}): {sentence}")

    def _newest(self) -> Run | None:
        """The newest run of this thread or request, in progress or done."""
        here = self._key(None)[0]
        mine = [run for key, run in list(self._runs.items()) if key[0] == here]
        return mine[-1] if mine else self.last

    def _end(self, key: Any) -> None:
        run = self._runs.pop(key, None)
        if run is not None:
            run.explain()
            run.free()
            self.last = run

    def _stepped(self, clock: Clock) -> None:
        """After every scheduler step: a run whose last step is done holds nothing."""
        if self._hooks and not self._hooks[0].in_place:
            self.last = None  # the trace is not to show the run before this one
            self._say(
                f"Nothing was reused: {type(self.model.model).__name__} was compiled as a whole after it was enabled, so its calls "
                "cannot be seen. Compile its blocks instead: for block in model.transformer_blocks: block.compile()."
            )
        for key, run in list(self._runs.items()):
            if run.clock is clock and run.start is not None and clock.times and run.start + clock.taken >= len(clock.times):
                self._end(key)
        for pipe, its_clock in self.audience:
            if its_clock is clock and not holds(pipe, self.model.model):
                self._say(
                    f"Nothing was reused: the pipeline's {type(self.model.model).__name__} was replaced after it was enabled. "
                    "Call omnicache.disable(pipe), and enable it again."
                )

    @property
    def trace(self) -> Trace:
        """The newest run's."""
        run = self._newest()
        if run is not None:
            run.explain()
        return run.trace if run is not None else Trace(self.plan.method, notes=list(self.notes))

    def bytes(self) -> int:
        """Bytes held now, over all runs."""
        return sum(r.bytes() for r in list(self._runs.values()))

    # --- calls ---------------------------------------------------------------------------------------------------------

    def _visit(self, roles: tuple[Role, ...], call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        """The hook of every governed module inside the denoiser."""
        p = active.get()
        if p is None or p.session is not self:
            return call(*args, **kwargs)
        return chained(p, roles, call)(args, kwargs)

    def _denoise(self, call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
        """The hook of the denoiser itself."""
        current = active.get()
        if (current is not None and current.session is self) or (not self.plan.policies and not self.audience):
            return call(*args, **kwargs)
        pipe = next(callers(self.model.model), None)
        if self.audience.leaves_out(pipe):
            return call(*args, **kwargs)
        bound = self._signature.bind(args, kwargs)
        geometry = _geometry(bound)
        run = self._run_for(pipe, geometry, bound)
        began = time.perf_counter()
        try:
            with run.busy:
                record, out = self._lead(run, geometry, call, args, kwargs, bound)
        except BaseException as problem:
            self._end(self._key(pipe))
            run.free()
            if self._gone and isinstance(problem, Exception):
                return call(*args, **kwargs)
            raise
        if self._gone:  # another thread has disabled it, and some of the hooks may have been gone already
            run.free()
            return call(*args, **kwargs)
        run.trace.records.append(record)
        spent = time.perf_counter() - began
        run.trace.timed &= run.on_host
        run.trace.seconds += spent
        run.trace.seconds_by_mark.setdefault(record.mark, []).append(spent)
        return out

    def _lead(self, run: Run, geometry: Any, *rest: Any) -> tuple[Record, Any]:
        """One step. If memory runs out in it, what the cache holds may be why: then without a cache, to the end of the run."""
        bound = rest[-1]
        step = run.step(bound)
        record, branch = Record(step), run.state_of(step, geometry, bound)
        try:
            out, full = self._evaluate(run, branch, record, *rest), False
        except Exception as problem:
            if run.disabled is not None or run.ranks or not is_out_of_memory(problem):
                raise  # of several ranks the others would not compute with this one
            out, full = None, True
        if full:  # not in the handler, which holds on to all that the pass held
            run.give_up("memory ran out, and what was kept is freed")
            record.begin_anew()
            out = self._evaluate(run, branch, record, *rest)
        run.evaluated(record, branch)
        return record, out

    def _evaluate(
        self,
        run: Run,
        branch: BranchState,
        record: Record,
        call: Callable[..., Any],
        args: Args,
        kwargs: dict[str, Any],
        bound: Mapping[str, Any],
    ) -> Any:
        """One step: rehearsals if a corrector wants them, the pass itself, checks, and the correction."""
        if run.disabled is not None:  # nothing will be reused, so nothing is kept
            record.computed = 1
            return call(*args, **kwargs)

        def once(forced: Decision | None = None, lag: int = 0, into: Record = record) -> tuple[Pass, Any]:
            p = Pass(run, branch, into, forced, lag)
            if forced is None and self.signals:
                p.measure("denoiser", self.model.model, bound)
            return p, p.evaluate(lambda: chained(p, self._root_roles, call)(args, kwargs))

        fixing = next((p for p in self.plan.policies if p.fix is not None), None)
        fix = fixing.fix if fixing is not None else None
        rehearsed: tuple[torch.Tensor, ...] = ()
        if fixing is not None and fix is not None and not fixing.when.signals and not branch.blank:
            decision = run.triggers[fixing.when].decide(record.step, {})
            if decision is Decision.COMPUTE:
                outs = []
                for lag in fix.rehearse(record.step):
                    trial = Record(record.step)
                    _, out = once(Decision.REUSE, lag, trial)
                    if trial.reused and not trial.computed:
                        outs.append(tensors_of(out)[0])
                        record.rehearsals += 1
                    else:
                        outs.clear()
                        break
                rehearsed = tuple(outs)

        p, out = once()
        if p.proving:
            p, out = self._prove(run, p, record, once, out)
        out = self._settle_checks(run, p, record, once, out)
        if record.computed and not record.reused and not record.partial and len(run.here) == 1:
            run.was_computed(record.step)  # history that was lost has forced it

        if fix is not None:
            state = get_or_make(branch.correctors, fix, fix.init)
            tensors = tensors_of(out)
            if branch.corrects is None:
                branch.corrects = tensors[0].nbytes if run.keeper.window.rehearses else 0
            if record.reused == 0 and record.partial == 0:
                branch.correctors[fix] = fix.learn(state, record.step, tensors[0], rehearsed)
            else:
                out = rebuild(out, (fix.apply(state, record.step, tensors[0]), *tensors[1:]))
        return out

    def _prove(self, run: Run, p: Pass, record: Record, once: Callable[[], tuple[Pass, Any]], out: Any) -> tuple[Pass, Any]:
        """Look at the first reuse of sites that consist of several modules: see ``Pass.proves``."""
        proving = set(p.proving)
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

    def _settle_checks(self, run: Run, p: Pass, record: Record, once: Callable[[], tuple[Pass, Any]], out: Any) -> Any:
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
            _, out = once()
        return out


def _finite(out: Any, ranks: Ranks) -> bool:
    """On all ranks."""
    found = [t for t in tensors_of(out) if t.is_floating_point()]
    return not ranks.any(not all(bool(torch.isfinite(t).all()) for t in found), found[0].device) if found else True


def _keeps(processor: Any) -> bool:
    """Whether an attention processor holds an object of its own making, which its calls may fill."""
    plain = (nn.Module, torch.Tensor, type, torch.dtype, torch.device, types.FunctionType, types.MethodType, functools.partial)
    held = getattr(processor, "__dict__", {}) if not isinstance(processor, nn.Module) else {}
    return any(hasattr(v, "__dict__") and not isinstance(v, plain) and n not in SETTINGS for n, v in held.items())


def _geometry(bound: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a call must share with those that were kept: shapes, dtypes, devices, and modes that are set by flags and words."""
    sizes = tuple((n, t.shape, t.dtype, t.device) for n, v in bound.items() for t in tensors_of(v))
    return sizes + tuple((n, v) for n, v in bound.items() if isinstance(v, (bool, str)))
