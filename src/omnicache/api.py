"""The verbs: ``cache``, ``enable``, ``disable``, ``calibrate``, ``tune``, ``check``, ``methods``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import nn

import omnicache.methods as _all_methods  # noqa: F401  (registers the methods)
from omnicache import registry
from omnicache.asked import Asked
from omnicache.differences import Difference, differences
from omnicache.errors import OmniCacheError
from omnicache.explain import why
from omnicache.fingerprint import fingerprint, kinds, made_for, other_weights, shape_seen
from omnicache.guards import Guards
from omnicache.integrations.migration import translate
from omnicache.integrations.pipelines import check_inputs, denoisers, split_call, with_scheduler
from omnicache.models.discover import discover
from omnicache.models.map import ModelMap
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.runtime.hook import is_compiled
from omnicache.runtime.ranks import check_group, ranks_of
from omnicache.runtime.runs import request
from omnicache.runtime.session import Session
from omnicache.runtime.trace import Trace

_enabled: WeakKeyDictionary[nn.Module, ref[Session]] = WeakKeyDictionary()
"""Weak on both sides: the hooks hold the session, so that a model that is forgotten while enabled can go."""


def _session_of(model: nn.Module) -> Session | None:
    known = _enabled.get(model)
    return known() if known is not None else None


class Caching:
    """What ``enable`` and ``cache`` return: print it to see what was computed, saved and kept, and what was not, and why."""

    def __init__(self, sessions: Sequence[Session], pipe: Any):
        self.sessions, self._pipe = tuple(sessions), pipe

    def disable(self) -> None:
        """Remove all that was enabled, also if the pipeline has got another denoiser since."""
        for session in self.sessions:
            _stop(session, self._pipe)

    @property
    def trace(self) -> Trace:
        """The newest run of the (first) denoiser."""
        return self.sessions[0].trace

    @property
    def computed(self) -> str:
        """One character a step: ``#`` computed, ``.`` reused, ``o`` in part, ``?`` reused and checked."""
        return self.trace.computed

    @property
    def cache_bytes(self) -> int:
        """The most bytes that the newest run kept at once."""
        return sum(s.trace.peak_bytes for s in self.sessions)

    @property
    def plan(self) -> Plan:
        return self.sessions[0].plan

    def request(self, name: Any) -> AbstractContextManager[None]:
        """Calls inside belong to the request ``name``: interleaved requests on one thread keep apart."""
        return request(name)

    def told(self, asked: Asked | None = None) -> str:
        """What is printed of the newest run; ``asked``: how a command was asked for it, which tells of every run by itself."""
        traces = [(session.trace, session) for session in self.sessions]
        return "\n".join(
            "\n  ".join((trace.told(session.begun if asked is None else 1), *why(trace, session.plan, asked)))
            for trace, session in traces
        )

    def __str__(self) -> str:
        return self.told()

    __repr__ = __str__


def plan_of(method: str | Path | Plan | Policy, guards: Guards | None = None, kinds: Sequence[str] = (), **options: Any) -> Plan:
    """A plan from a method's name and options, a plan file, a Policy, or a Plan; with ``guards`` in place of its own.

    Raises:
        OmniCacheError: an unknown name or option, an option out of range, an unreadable file.
    """
    if isinstance(method, (str, Path)) and (str(method).endswith(".json") or isinstance(method, Path)):
        method = Plan.load(method)
    if guards is not None and not isinstance(guards, Guards):
        raise OmniCacheError(f"guards is a limit, guards=omnicache.Guards(memory={guards!r}), not {type(guards).__name__}.")
    if guards is not None:
        return replace(plan_of(method, None, kinds, **options), guards=guards)
    if isinstance(method, str):
        return registry.get(method).plan_for(kinds, **options)
    if isinstance(method, Policy):
        method = Plan("policy", (method,))
    if not isinstance(method, Plan):
        method = translate(method) or method
    if not isinstance(method, Plan):
        raise OmniCacheError(f"A method is a name, a Plan, a Policy or the path of a plan file, not {type(method).__name__}.")
    if options:
        raise OmniCacheError(f"A finished plan takes no options; {sorted(options)[0]!r} was given. Build it anew by its name.")
    return method


def enable(
    pipe: Any, method: str | Path | Plan | Policy, *, guards: Guards | None = None, group: Any = None, **options: Any
) -> Caching:
    """Cache every run of ``pipe`` until ``disable(pipe)``.

    Plans belong to denoisers: other pipelines around the same one are cached, too, in every thread. Enabling the same plan on
    several of them is fine.

    Args:
        pipe: a diffusers pipeline, its transformer or unet, or a module with a list of blocks.
        method: a method's name (see ``methods()``), a Plan, a Policy, the path of a plan file, or another library's config of a
            cache (diffusers' ``TaylorSeerCacheConfig``), which is translated, and its new spelling printed.
        guards: limits that hold whatever the method: ``Guards(memory="200 MB")``.
        group: the ``torch.distributed`` process group whose ranks each hold a part of every sequence, so that all decide alike,
            for a split written by hand: diffusers' context parallelism is seen by itself.
        **options: the method's options.

    Raises:
        OmniCacheError: nothing has been changed; the message says what to type.
    """
    plan = plan_of(method, guards, looks := kinds(pipe), **options)
    check_group(group)
    models = denoisers(pipe)
    present = {m: s for m in models if (s := _session_of(m)) is not None}
    for model in models:
        held = present.get(model)
        same = held is not None and held.plan == plan and held.group is group
        if held is not None and same and with_scheduler(pipe) is not None and not held.audience.admits(pipe):
            continue  # another pipeline around a denoiser that is cached by this plan
        if model in present:
            raise OmniCacheError(
                f"{type(model).__name__} is already cached by {present[model].plan.method}, and one denoiser has one plan at a "
                "time, whatever pipelines share it. Call omnicache.disable(pipe) first."
            )
        _refuse(pipe, model, plan)
        ranks_of(model, group)  # says so now if it cannot be told
    fresh: dict[nn.Module, Session] = {}
    try:
        for model in models:
            if model not in present:
                found = discover(model) if plan.policies else ModelMap(model, "none", ())
                fresh[model] = Session(found, plan, with_scheduler(pipe), group)
                fresh[model].notes += _assumed(plan, looks)
    except BaseException:
        for session in fresh.values():
            session.detach()
        raise
    for session in present.values():
        session.audience.admit(pipe)
    for model, session in fresh.items():
        _enabled[model] = ref(session)
    if models[0] in fresh and (now := other_weights(plan.made_for, models[0])):
        then = plan.made_for["weights"]
        note = f"The plan was made with other weights ({then}, and these are {now}): what was measured does not hold."
        fresh[models[0]].notes.append(note)
    return Caching([fresh.get(model) or present[model] for model in models], pipe)


def disable(pipe: Any) -> None:
    """Remove all that ``enable`` did, to the bit. Does nothing where nothing is enabled.

    A denoiser that another enabled pipeline shares stays cached there; runs of this pipeline are passed through.
    """
    current = {getattr(m, "_orig_mod", m) for m in denoisers(pipe)}
    for model in [*current, *(m for m in list(_enabled) if m not in current)]:
        session = _session_of(model)
        if session is not None and (model in current or session.audience.admits(pipe)):
            _stop(session, pipe)


def _stop(session: Session, pipe: Any) -> None:
    if session.audience.serves_others(pipe):
        session.audience.leave_out(pipe)
    else:
        _enabled.pop(session.model.model, None)
        session.detach()


class cache(AbstractContextManager[Caching]):
    """``enable`` for the length of a ``with`` block; also after an exception inside it, nothing is left behind.

    Takes what ``enable`` takes.

    >>> with omnicache.cache(pipe, "taylorseer", interval=5) as run:
    ...     image = pipe("a red fox in snow").images[0]
    >>> print(run)
    """

    def __init__(
        self,
        pipe: Any,
        method: str | Path | Plan | Policy,
        *,
        guards: Guards | None = None,
        group: Any = None,
        **options: Any,
    ):
        self._pipe, self._plan, self._group = pipe, plan_of(method, guards, kinds(pipe), **options), group
        self._run: Caching | None = None

    def __enter__(self) -> Caching:
        self._run = enable(self._pipe, self._plan, group=self._group)
        return self._run

    def __exit__(self, *problem: object) -> None:
        if self._run is not None:
            self._run.disable()
            self._run = None

    def __repr__(self) -> str:
        return f"{self._plan.method}, not active: write `with omnicache.cache(...) as run:`, or use omnicache.enable(pipe, ...)."


def calibrate(pipe: Any, inputs: Sequence[Any], method: str, progress: bool = True, **options: Any) -> Plan:
    """Measure uncached runs and make a plan for this pipeline, step count and guidance.

    Args:
        pipe: a diffusers pipeline.
        inputs: a list of keyword dicts for ``pipe(...)``, or of strings or numbers for its first argument. Eight do.
        method: a method that can be calibrated (see ``methods()``).
        progress: show a progress bar.
        **options: the calibration's options (``reuse=0.5``) and arguments for every call of the pipeline
            (``num_inference_steps=30``, ``guidance_scale=4.0``).

    Raises:
        OmniCacheError: the method needs no calibration, the options do not fit, or something is already enabled.
    """
    entry = registry.get(method)
    if entry.calibrate is None:
        raise OmniCacheError(f"{method} has nothing to calibrate; use omnicache.cache(pipe, {method!r}) as it is.")
    listed = check_inputs(inputs)
    known = {o.name for o in registry.options_of(entry.calibrate)} - {"pipe", "inputs", "call", "progress"}
    ours, call = split_call(pipe, options, known, "this calibration")
    for model in denoisers(pipe):
        if _session_of(model) is not None:
            raise OmniCacheError("Calibration measures uncached runs. Call omnicache.disable(pipe) first.")
        if ranks_of(model):
            raise OmniCacheError(
                f"Calibration looks at whole sequences, and {type(model).__name__} is split over several processes. Calibrate in "
                "one process, save the plan (plan.save(path)), and enable the file on every rank."
            )
    with shape_seen(denoisers(pipe)[0]) as seen:
        plan = entry.calibrate(pipe, listed, call, progress, **ours)
    return replace(plan, made_for=made_for(pipe, call, listed) | seen)


def tune(
    pipe: Any,
    inputs: Sequence[Any],
    *,
    speedup: float | None = None,
    psnr: float | None = None,
    memory: str | int | None = None,
    methods: str | Sequence[str] = "auto",
    budget: str | float = "10 min",
    folder: str | Path | None = None,
    progress: bool = True,
    **call: Any,
) -> Plan:
    """Find the plan that reaches a goal on this pipeline: the likest that is so fast, or the fastest that is so like.

    A quarter of the inputs, four at most, is fitted on; of the others half choose the plan, and half are held out:
    ``plan.measured["tuned"]["held_out"]`` says what it does to those, and where they fall short of the goal, a warning does.
    What is measured is kept in ``folder``, so that a search that was interrupted goes on where it was.

    Args:
        pipe: a diffusers pipeline.
        inputs: as of :func:`calibrate`; sixteen do. Of fewer than four one alone chooses the plan, and how far others are off is
            not known: ``plan.measured["tuned"]["inputs"]`` says how many did.
        speedup: of the denoiser, against the uncached pipeline on this machine: 2 is twice as fast.
        psnr: in dB, the mean over pictures against the uncached ones of the same seeds. Around 30 side by side few can tell.
        memory: the most that may be kept, ``"200 MB"``.
        methods: "auto": ``omnicache-optimal``, ``taylorseer`` and ``fewer-steps``; "all"; or names. Besides the first, those that
            need no calibration. With the first, other methods are tried inside its computed steps, too.
        budget: the time of measuring, that of an interrupted search with it, after which no other method or composition is begun:
            ``"10 min"``. What was left out is told. How many steps our own must compute is always searched to its end.
        folder: for what is measured; a folder of the user's cache if None.
        progress: show progress bars.
        **call: arguments of every call of the pipeline (``num_inference_steps=30``).

    Raises:
        OmniCacheError: the goal was not reached; the message has the nearest.
    """
    from omnicache.tuning.goal import Goal
    from omnicache.tuning.search import tune as search

    for model in denoisers(pipe):
        if _session_of(model) is not None:
            raise OmniCacheError("Tuning measures uncached runs. Call omnicache.disable(pipe) first.")
    return search(pipe, inputs, Goal(speedup, psnr, memory), methods, budget, folder, progress, call)


def check(pipe: Any, plan: str | Path | Plan, **call: Any) -> list[Difference]:
    """Compare what a plan was made for with a pipeline and the arguments of its calls, without running anything.

    >>> for difference in omnicache.check(pipe, "mine.plan.json", num_inference_steps=20):
    ...     print(difference)

    Returns:
        One :class:`Difference` for each thing that the plan was made for: model, weights, scheduler, steps, guidance, size. Each is
        "fine", or "measured elsewhere" (it runs, and figures do not hold), or "refused", with what to do. Arguments that are not
        given count with the pipeline's own values.
    """
    loaded = plan_of(plan)
    return differences(loaded, denoisers(pipe)[0], pipe, call)


def methods() -> dict[str, registry.Method]:
    """All registered methods by name."""
    return dict(registry.METHODS)


def _assumed(plan: Plan, looks: Sequence[str]) -> list[str]:
    """Which model's released options a plan has taken, where others may look like that model."""
    name = registry.METHODS[plan.method].preset_for(looks).get("model") if plan.method in registry.METHODS else None
    if name is None or plan.options.get("model") != name:
        return []
    return [
        f"What was released for {name} is used, which the denoiser looks like by its class, blocks and configuration. If it is "
        f"another model, choose that, {plan.method} with model=..., of those that `omnicache methods {plan.method}` lists, or "
        f"calibrate: omnicache.calibrate(pipe, inputs, {plan.method!r})."
    ]


def _refuse(pipe: Any, model: nn.Module, plan: Plan) -> None:
    """Refuse what would go wrong silently."""
    name = type(model).__name__
    if is_compiled(model):
        raise OmniCacheError(
            f"{name} is compiled as a whole, and hooks inside a compiled graph do not run. Enable OmniCache on the plain "
            "model and compile its blocks instead: for block in model.transformer_blocks: block.compile()."
        )
    if getattr(model, "is_cache_enabled", False):
        raise OmniCacheError(f"{name} already has a diffusers cache. Call {name}.disable_cache() first.")
    if plan.steps != 1.0 and "strength" in inspect.signature(type(pipe).__call__).parameters:
        raise OmniCacheError(
            f"{type(pipe).__name__} runs the last part of its steps only, as its `strength` says, and {plan.method} would change "
            "which part that is. Give it fewer steps yourself: pipe(..., num_inference_steps=...)."
        )
    wanted, found = plan.made_for, fingerprint(model)
    for key in ("model", "parameters"):
        if key in wanted and wanted[key] != found[key]:
            raise OmniCacheError(
                f"The plan was made for {wanted.get('model')} with {wanted.get('parameters')} parameters; this is {found['model']} "
                f"with {found['parameters']}. Calibrate one for it: omnicache.calibrate(pipe, inputs, {plan.method!r})."
            )
