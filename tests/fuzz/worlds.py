"""What a case is, how one is drawn, and what its runs do.

A case is a frozen value whose ``repr`` can be pasted into Python: a model, a plan, and a few runs one after the other.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import diffusers
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import omnicache
from omnicache import granularity as places
from omnicache import predictors, signals, triggers
from omnicache.correctors import NoiseCorrection
from omnicache.plan import Plan
from omnicache.policy import Policy, Predictor, Trigger, Where
from omnicache.registry import Choice, Option, Range
from omnicache.selectors import TokenScores

from .models import (
    BETWEEN,
    READS,
    REAL,
    RETURNS,
    STREAMS,
    WRITES,
    Kind,
    Real,
    Toy,
    arguments,
    conditions_of,
    places_of,
    prediction,
    shape_of,
    twin_of,
)

SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "ddpm": lambda: diffusers.DDPMScheduler(clip_sample=False),
    "euler": diffusers.EulerDiscreteScheduler,
    "euler ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpm++": diffusers.DPMSolverMultistepScheduler,
    "dpm++ single": lambda: diffusers.DPMSolverSinglestepScheduler(lower_order_final=True),
    "unipc": diffusers.UniPCMultistepScheduler,
    "pndm": lambda: diffusers.PNDMScheduler(skip_prk_steps=True),
    "deis": diffusers.DEISMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
    "flow euler": diffusers.FlowMatchEulerDiscreteScheduler,
    "flow heun": diffusers.FlowMatchHeunDiscreteScheduler,
}
GUIDANCE = ("none", "batched", "calls", "contexts")


@dataclass(frozen=True)
class Run:
    """One denoising run: its length and start, the size of its latents, its guidance, and where it is cancelled."""

    steps: int = 6
    batch: int = 1
    large: bool = False
    guidance: str = "none"
    until: int = 99
    """The step at which guidance is switched off."""
    start: int = 0
    """Where in the schedule it begins, as image-to-image does."""
    cancelled: int = 99
    """Steps after which it is cancelled."""
    seed: int = 1


@dataclass(frozen=True)
class Act:
    """One thing that is done with an enabled pipeline.

    Attributes:
        what: "run"; "other pipeline" (another one around the same denoiser, with a scheduler of its own); "requests" (both at
            once, step by step in turn, each in a request of its own); "new scheduler" (the pipeline's is replaced first);
            "bare" (a loop that no pipeline runs, on a scheduler that nobody listens to); "anew" (disabled and enabled first).
    """

    what: str = "run"
    run: Run = field(default_factory=Run)


WHATS = ("run", "other pipeline", "requests", "new scheduler", "bare", "anew")


@dataclass(frozen=True)
class Case:
    """Everything that is drawn. ``plan`` is a method's name with its options, or policies."""

    kind: Kind = field(default_factory=Toy)
    scheduler: str = "ddim"
    plan: tuple[Policy, ...] | str = "fora"
    options: tuple[tuple[str, Any], ...] = ()
    acts: tuple[Act, ...] = (Act(),)
    laws: tuple[str, ...] = ("off", "still", "counts", "frees", "truth", "naive")
    """Which laws are asked besides those of the acts, see ``oracle.py``; a few of them at a time, as each costs runs of its own."""
    inference: bool = False
    """Whether the loops run in inference mode, in which tensors count no writes."""

    def made(self) -> Plan:
        """The plan, which may be refused."""
        if isinstance(self.plan, str):
            return omnicache.methods()[self.plan].plan(**dict(self.options))
        return Plan("random", self.plan)

    def mode(self) -> AbstractContextManager[Any]:
        return torch.inference_mode() if self.inference else torch.no_grad()


class Pipe:
    """A denoising loop around a model, as diffusers' pipelines have it."""

    def __init__(self, case: Case, model: nn.Module | None = None, scheduler: str | None = None):
        self.kind = case.kind
        self.scheduler = SCHEDULERS[scheduler or case.scheduler]()
        self.transformer = twin_of(case.kind) if model is None else model

    def __call__(self, run: Run) -> Tensor:
        return finished(self.steps(run))

    def steps(self, run: Run) -> Iterator[Tensor]:
        """The latents after every step."""
        yield from _loop(self, run, self.scheduler)


def finished(steps: Iterator[Tensor]) -> Tensor:
    *_, last = steps
    return last


def bare(kind: Kind, model: nn.Module, run: Run, scheduler: Any) -> Iterator[Tensor]:
    """The same loop, with no pipeline in sight."""
    return _loop(_Parts(kind, model), run, scheduler)


@dataclass
class _Parts:
    kind: Kind
    transformer: nn.Module


def _loop(parts: Any, run: Run, scheduler: Any) -> Iterator[Tensor]:
    noise = torch.Generator().manual_seed(run.seed)
    scheduler.set_timesteps(run.steps)
    times = scheduler.timesteps[run.start :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(run.start)
    shape = (run.batch, *shape_of(parts.kind, run.large))
    x = torch.randn(shape, generator=noise) * min(float(getattr(scheduler, "init_noise_sigma", 1.0)), 20.0)
    more = {"generator": noise} if "generator" in inspect.signature(type(scheduler).step).parameters else {}
    told = _conditions(parts.kind, run)
    for i, t in enumerate(times):
        if i == run.cancelled:
            return
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        guided = _guided(parts, run.guidance if i < run.until else "none", seen, t, told)
        x = scheduler.step(guided, t, x, return_dict=False, **more)[0]
        yield x


def _conditions(kind: Kind, run: Run) -> dict[str, dict[str, Tensor]]:
    labels, none = [run.seed + 1 + i for i in range(run.batch)], [0] * run.batch
    return {name: conditions_of(kind, found) for name, found in (("cond", labels), ("uncond", none), ("both", none + labels))}


asked_for: ContextVar[str] = ContextVar("asked_for", default="")
"""Which guidance branch the loop asks the model for, whatever the library takes it for."""


def _guided(parts: Any, guidance: str, x: Tensor, t: Tensor, told: dict[str, dict[str, Tensor]]) -> Tensor:
    def call(name: str, given: Tensor) -> Tensor:
        asked_for.set(name)
        named = guidance == "contexts" and hasattr(parts.transformer, "cache_context")
        with parts.transformer.cache_context(name) if named else nullcontext():
            asked = arguments(parts.kind, given, t, {**told[name], **places_of(parts.kind, given)})
            out = parts.transformer(**asked)
        return prediction(out, given.shape[1], given)

    if guidance == "none":
        return call("cond", x)
    a, b = call("both", torch.cat([x, x])).chunk(2) if guidance == "batched" else (call("uncond", x), call("cond", x))
    return a + 1.5 * (b - a)


# --- drawing ---------------------------------------------------------------------------------------------------------------

LENGTHS = st.integers(5, 8)
LAWS = st.sampled_from(
    (("truth",), ("truth", "off"), ("naive", "counts"), ("naive", "frees"), ("still", "counts"), ("frees", "off"))
)


@functools.cache
def runs() -> st.SearchStrategy[Run]:
    whole = st.just(99)
    return st.builds(
        Run,
        steps=LENGTHS,
        batch=st.sampled_from((1, 2)),
        large=st.booleans(),
        guidance=st.sampled_from(GUIDANCE),
        until=whole | st.integers(1, 6),
        start=st.just(0) | st.integers(0, 2),
        cancelled=whole | st.integers(1, 4),
        seed=st.integers(1, 3),
    )


@functools.cache
def kinds() -> st.SearchStrategy[Kind]:
    toys = st.builds(
        Toy,
        layers=st.integers(2, 4),
        streams=st.sampled_from(STREAMS),
        returns=st.sampled_from(RETURNS),
        writes=st.just("nothing") | st.sampled_from(WRITES),
        between=st.just("nothing") | st.sampled_from(BETWEEN),
        reads=st.just("nothing") | st.sampled_from(READS),
        twice=st.booleans(),
        parts=st.booleans(),
        keywords=st.booleans(),
        outside=st.booleans(),
    )
    return st.integers(0, 9).flatmap(lambda n: st.builds(Real, st.sampled_from(REAL)) if n >= 8 else toys)


def _triggers() -> st.SearchStrategy[Trigger]:
    few, signal = st.integers(0, 4), st.sampled_from((signals.LatentChange(), signals.ModulatedInputChange()))
    leaves = st.one_of(
        st.builds(triggers.First, few),
        st.builds(triggers.Every, st.integers(1, 4)),
        st.builds(triggers.Every, st.integers(2, 4), st.integers(0, 3), st.booleans()),
        st.builds(triggers.Last, few),
        st.builds(triggers.Between, st.integers(0, 3), st.integers(4, 6)),
        st.builds(triggers.Table, st.text("#.", min_size=5, max_size=8)),
        st.builds(triggers.Ramp, st.integers(1, 4), st.sampled_from((-0.5, 0.4))),
        st.builds(triggers.PowerLaw, st.integers(2, 4), st.just(1.4), st.integers(0, 6)),
        st.builds(triggers.Accumulate, signal, st.sampled_from((0.0, 0.05, 0.2, 1.0, math.inf))),
        st.builds(triggers.Verify, st.sampled_from((0.0, 0.1, 10.0)), redo=st.booleans(), shortest=few, longest=few),
    )
    pairs: Any = lambda inner: st.one_of(  # noqa: E731
        st.builds(triggers.Or, inner, inner), st.builds(triggers.And, inner, inner), st.builds(triggers.Not, inner)
    )
    return st.recursive(leaves, pairs, max_leaves=3)


def _is_net(kind: Kind) -> bool:
    return isinstance(kind, Real) and kind.kind.startswith("unet")


def _has_parts(kind: Kind) -> bool:
    return isinstance(kind, Real) or kind.parts


def _places(net: bool, parted: bool) -> st.SearchStrategy[Where]:
    """Mostly places that the model has."""
    parts: list[Where] = [places.Attention(), places.MLP()] if parted else []
    row = st.one_of(
        st.sampled_from((places.Stack(), places.Blocks())),
        st.builds(places.Block, st.integers(-2, 1)),
        st.builds(places.Blocks, st.integers(0, 1), st.integers(-1, 2)),
    )
    deep = st.sampled_from((places.Deep(0), places.Deep(1), places.CrossAttention()))
    common = st.sampled_from((places.Stack(), places.Denoiser(), *parts))
    leaves = st.one_of(common, common, deep if net else row)
    algebra = (
        places.Union,
        lambda a, b: places.Difference(places.Union(a, b), b),
        lambda a, b: places.Intersection(places.Union(a, b), a),
    )
    pairs: Any = lambda inner: st.one_of(*(st.builds(op, inner, inner) for op in algebra))  # noqa: E731
    return st.recursive(leaves, pairs, max_leaves=3)


def _predictors() -> st.SearchStrategy[Predictor]:
    values = st.one_of(
        st.builds(predictors.Hold, st.integers(1, 2)),
        st.builds(
            predictors.Taylor,
            st.integers(0, 2),
            st.sampled_from(("taylor", "newton")),
            st.sampled_from(("step", "sigma")),
            st.integers(0, 2),
        ),
    )
    return values | st.builds(predictors.Residual, values)


def _corrections() -> st.SearchStrategy[NoiseCorrection]:
    gamma = st.lists(st.sampled_from((None, 0.0, 0.3)), min_size=5, max_size=8).map(tuple)
    return st.builds(
        NoiseCorrection,
        gamma,
        st.sampled_from((None, 0.25)),
        st.integers(0, 4),
        st.sampled_from((None, 2)),
        st.sampled_from(("gaussian", "ideal")),
    )


@functools.cache  # strategies take longer to make than to draw from
def _policies(net: bool, parted: bool) -> st.SearchStrategy[Policy]:
    where = _places(net, parted)
    by_rows = st.builds(
        Policy,
        _triggers(),
        st.just(places.MLP()) | where,
        st.just(predictors.Hold()),
        st.builds(TokenScores, st.sampled_from((0.0, 0.2, 5.0)), st.integers(1, 3)),
    )
    corrected = st.builds(Policy, _triggers(), where, _predictors(), st.none(), _corrections())
    plain = st.builds(Policy, _triggers(), where, _predictors())
    return st.one_of(plain, plain, corrected, by_rows)


def _option(option: Option) -> st.SearchStrategy[Any]:
    """A value that the schema of an option allows, mostly a small one."""
    allowed, default = option.allowed, option.default
    if option.name == "schedule" and not isinstance(allowed, Choice):
        return st.text("#.", min_size=5, max_size=8)
    if option.name == "gamma":
        return st.lists(st.sampled_from((None, 0.3)), min_size=5, max_size=8).map(tuple) | st.just(())
    if isinstance(allowed, Choice):
        return st.sampled_from(allowed.words)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, tuple):
        return st.just(default)
    low, high = (allowed.low, allowed.high) if isinstance(allowed, Range) else (None, None)
    low, high = 0.0 if low is None else low, 8.0 if high is None else min(high, 8.0)
    whole = isinstance(default, int) or int in getattr(option.hint, "__args__", ())
    drawn: Any = st.integers(math.ceil(low), int(high)) if whole else st.sampled_from((low, 0.8 * low + 0.2 * high, high))
    return st.none() | drawn if option.optional else drawn


TABLES = ("omnicache-trajectory", "omnicache-layered", "learning-to-cache", "harmonica", "block-caching")
"""Methods that are given a table."""
ASKING = {("pab", "temporal"), ("pab", "cross"), ("chipmunk", "edge")}
"""Options that ask for parts which few of these small models have."""


@functools.cache
def _named(net: bool, parted: bool) -> st.SearchStrategy[tuple[str, tuple[tuple[str, Any], ...]]]:
    def drawn(name: str) -> st.SearchStrategy[tuple[str, tuple[tuple[str, Any], ...]]]:
        known = [o for o in omnicache.methods()[name].options if (name, o.name) not in ASKING]
        given = st.fixed_dictionaries({}, optional={o.name: _option(o) for o in known})
        if name in TABLES:
            given = st.builds(lambda made, table: made | {"schedule": table}, given, st.text("#.", min_size=5, max_size=8))
        return st.tuples(st.just(name), given.map(lambda g: tuple(g.items())))

    strange = {"speca"} if net else {"deepcache", "speca", "toca"} if not parted else {"deepcache"}
    fitting = [n for n in sorted(omnicache.methods()) if n not in strange]
    return st.sampled_from(fitting).flatmap(drawn)


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    named = draw(st.booleans())
    kind = draw(kinds())
    has = _is_net(kind), _has_parts(kind)
    plan, options = draw(_named(*has)) if named else (tuple(draw(st.lists(_policies(*has), min_size=1, max_size=2))), ())
    acts = tuple(
        Act(draw(st.just("run") | st.sampled_from(WHATS)), draw(runs())) for _ in range(draw(st.sampled_from((1, 1, 2, 3))))
    )
    case = Case(kind, draw(st.sampled_from(sorted(SCHEDULERS))), plan, options, acts, draw(LAWS), draw(st.booleans()))
    return fitted(case)


def fitted(case: Case) -> Case:
    """The same with tables as long as the first run, more often than chance would have it."""
    length = evaluations(case.scheduler, case.acts[0].run)

    def table(text: str) -> str:
        return (text * 4)[:length]

    if isinstance(case.plan, str):
        options = dict(case.options)
        if case.plan in TABLES and "schedule" in options:
            options["schedule"] = table(options["schedule"])
            if options.get("gamma"):
                options["gamma"] = tuple(0.3 if c == "." else None for c in options["schedule"])
        return replace(case, options=tuple(options.items()))

    def walk(part: Any) -> Any:
        if isinstance(part, triggers.Table):
            return triggers.Table(table(part.steps))
        if isinstance(part, (triggers.Or, triggers.And)):
            return type(part)(walk(part.a), walk(part.b))
        return triggers.Not(walk(part.a)) if isinstance(part, triggers.Not) else part

    return replace(case, plan=tuple(replace(p, when=walk(p.when)) for p in case.plan))


def evaluations(scheduler: str, run: Run) -> int:
    """Steps of the scheduler in a run that is not cancelled."""
    made = SCHEDULERS[scheduler]()
    made.set_timesteps(run.steps)
    return len(made.timesteps) - run.start
