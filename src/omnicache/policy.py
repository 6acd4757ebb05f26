"""A caching method is a sentence: compute **when** ..., at **where** ..., else fill in **how** ..., and **fix** the result.

The four words are four small protocols. Everything here is frozen configuration; state is handed in and returned, and the
session keeps it, per run and branch. So threads, requests and guidance passes can share one policy.

    Policy(when=First(3) | Every(5), where=Attention() | MLP(), how=Taylor(order=2))      # TaylorSeer
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
from typing_extensions import dataclass_transform

from omnicache import schema
from omnicache.errors import OmniCacheError
from omnicache.runtime.step import Step

if TYPE_CHECKING:
    from omnicache.models.grid import Grid
    from omnicache.models.map import ModelMap, Site

Tensors = tuple[torch.Tensor, ...]
T = TypeVar("T", bound=type)

VALUES: dict[str, type] = {}
"""Every class that may stand in a plan file, by name: nothing else is ever built from a file."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: T) -> T:
    """Make a class a frozen dataclass that a plan file may name. Its fields are held to their annotations when it is made:
    whole floats become ints where an int is wanted, lists tuples, and what does not fit is refused; see ``schema.py``."""
    own = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any, *more: Any) -> None:
        schema.settle(self)
        if own is not None:
            own(self, *more)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    made = dataclass(frozen=True)(cls)
    known = VALUES.get(cls.__name__)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise OmniCacheError(
            f"{known.__module__} has a value called {cls.__name__} already; plan files tell them by name. Rename yours."
        )
    VALUES[cls.__name__] = made
    return made


class Decision(Enum):
    """What a trigger says of one step. The values are the characters of ``run.computed``."""

    COMPUTE = "#"
    REUSE = "."
    CHECK = "?"
    """Reuse, and compare the estimate with the truth at the site that the trigger names."""


@dataclass(frozen=True)
class Moment:
    """All that a trigger may know.

    Attributes:
        step: the step to decide on.
        last: the step at which the trigger's sites were last computed in this run, or None.
        reused: steps reused since then.
        signals: what was measured for this step, one number a sample; None where there was nothing to compare with.
            NaN where it is not known, on this or another rank.
    """

    step: Step
    last: Step | None = None
    reused: int = 0
    signals: Mapping[Signal, torch.Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What a run shows a trigger afterwards, so that it can say why it computed.

    Attributes:
        steps: the evaluations of one branch, in order.
        signals: of each, what was measured of the signals: one number a sample; None where there was nothing to compare with.
        errors: of each, the error of its estimate where that was checked, else None.
        computed: of each, whether it was computed in full.
    """

    steps: tuple[Step, ...]
    signals: tuple[Mapping[Signal, torch.Tensor | None], ...]
    errors: tuple[float | None, ...]
    computed: tuple[bool, ...] = ()

    def worst(self, signal: Signal) -> list[float]:
        """The largest of a signal's numbers at each step at which it was known, in order."""
        known = [found for of in self.signals if (found := of.get(signal)) is not None]
        return [float(found.float().nan_to_num(0).max()) for found in known if found.numel()]


@dataclass(frozen=True)
class Remark:
    """Why a trigger computed as many steps as it did, with the one number of its own that would change it.

    Attributes:
        said: a clause without its full stop: "3 of 12 steps are the first ones".
        steps: how many computed steps it accounts for.
        option: what methods call the number: "threshold", "warmup".
        now: what it is.
        better: what would have had more steps reused.
    """

    said: str
    steps: int
    option: str
    now: float
    better: float


class Signal:
    """Something measured at a step for triggers: see ``signals/``."""

    at: str | int = "denoiser"
    """Where it is read: "denoiser" (before the model runs), "stack" (at the entry of the first block), a number (before that
    block), or "site": what the modules of ``where`` return whenever they run, so that it is known from the next step on."""
    where: Where | None = None
    """Of "site", the modules: the first site that it picks; with ``each``, all of them."""
    each: bool = False
    """Whether every site that ``where`` picks is told of: ``(sites, batch)`` numbers, NaN of a site that has not run twice."""
    against: str = "visited"
    """What it is compared with: its value at the last step ("visited"), at the last one that its trigger has computed ("computed"),
    or nothing: it is measured by itself ("nothing")."""
    needs_grid: bool = False
    """Whether it must know how rows lie: then ``Step.latent`` tells."""

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        """The tensor to watch, from the module's arguments by name; None where this model does not have it."""
        raise NotImplementedError

    def compare(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """One number a sample, ``(batch,)``. Where processes share a sequence, the mean of what each of them says."""
        raise NotImplementedError

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """What is added up over processes that each hold a part of the tokens, ``(n, batch)``. In place of ``compare`` for
        signals that are to be the same number as in one process."""
        change = self.compare(now, before)
        return torch.stack((change, torch.ones_like(change)))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        """One number a sample, ``(batch,)``, from the added sums."""
        return sums[0] / sums[1]


class Trigger:
    """When to compute. Say COMPUTE whenever in doubt; whatever is unknown (no history, NaN) is computed anyway.

    Triggers combine: ``a | b`` computes if either says so, ``a & b`` if both do, ``~a`` if ``a`` does not.
    """

    signals: tuple[Signal, ...] = ()
    check: Where | None = None
    """Where a CHECK step compares estimate and truth; only for triggers that ask for one."""
    redo: bool = False
    """Whether a failed check computes the same step anew."""

    def init(self) -> Any:
        """State at the start of a run."""
        return None

    def decide(self, state: Any, moment: Moment) -> tuple[Decision, Any]:
        """The decision for one step, and the new state. Asked once a step, whatever others decide."""
        raise NotImplementedError

    def settle(self, state: Any, moment: Moment, decision: Decision) -> Any:
        """Told what was done in the end: another trigger, or a missing history, may have forced a computation."""
        return state

    def observe(self, state: Any, moment: Moment, error: float) -> tuple[bool, Any]:
        """Told the error of a CHECK step. Returns whether the estimate is accepted, and the new state."""
        return True, state

    by_site: bool = False
    """Whether ``spares`` is to be asked: whether it decides site by site."""

    def spares(self, state: Any, site: int) -> bool:
        """At a step that is reused, whether the policy's site number ``site`` is; the others are computed."""
        return True

    def misfit(self, total: int | None) -> str | None:
        """Why this trigger cannot serve a run of ``total`` steps, as a sentence; None if it can."""
        return None

    def why(self, seen: Seen) -> tuple[Remark, ...]:
        """Why it computed as many steps as it did, for people who wonder; nothing where its description says it all."""
        return ()

    def __or__(self, other: Trigger) -> Trigger:
        from omnicache.triggers.combine import Or

        return Or(self, other)

    def __and__(self, other: Trigger) -> Trigger:
        from omnicache.triggers.combine import And

        return And(self, other)

    def __invert__(self) -> Trigger:
        from omnicache.triggers.combine import Not

        return Not(self)


class Where:
    """Where to cache: picks sites of a model. Set algebra: ``a | b``, ``a & b``, ``a - b``."""

    called: str = ""
    """What it picks, in words, for the sentence that a model has none of it."""
    optional: bool = False
    """Whether a model that has none of it is cached without; if not, it is refused."""

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        raise NotImplementedError

    def __or__(self, other: Where) -> Where:
        from omnicache.granularity.algebra import Union

        return Union(self, other)

    def __and__(self, other: Where) -> Where:
        from omnicache.granularity.algebra import Intersection

        return Intersection(self, other)

    def __sub__(self, other: Where) -> Where:
        from omnicache.granularity.algebra import Difference

        return Difference(self, other)


@dataclass(frozen=True, eq=False)
class Entry:
    """One computed value of a site: where it was computed, and its tensors."""

    step: Step
    tensors: Tensors


History = tuple[Entry, ...]
"""Computed values, newest first. Estimates never enter."""


class Predictor:
    """How to fill in. Learns from computed values only, and estimates a missing one."""

    needs_input: bool = False
    """Whether the site's input takes part (``Residual``)."""

    needs_entry: bool = False
    """Whether what entered the first block takes part, too; it is given as the last of the inputs."""

    copies: int = 1
    """Tensors that are kept for each one of a value; 0 if it only notes that something was computed."""

    remembers: bool = True
    """Whether it fills in from earlier steps; if not, the first step need not be computed."""

    needs_grid: bool = False
    """Whether it must know how rows lie: then ``Step.latent`` tells."""
    pools: int | None = None
    """From which step on the branches of guidance keep the mean of their values in place of their own; None: never."""

    mirrors: bool = False
    """Between the branches of guidance: whether it is the same function in both directions, so that either may be the one that
    runs."""

    exact_degree: int | None = None
    """The degree of polynomials in the position that are estimated exactly, at uneven spacing too; None: see its tests."""

    def learn(self, history: History, step: Step, x: Tensors, y: Tensors) -> History:
        """The history with the value ``y`` computed at ``step`` from the inputs ``x``.

        Older entries may be kept in another dtype, or on the host: combine values in ``estimate``, where they are as they were.
        """
        raise NotImplementedError

    def suits(self, step: Step, y: Tensors) -> bool:
        """Whether it can estimate such values at all; if not, the site is computed."""
        return True

    def misfit(self, y: Tensors) -> str | None:
        """Why a computed value is none that it can stand for, as a sentence; None if it can. What it refuses ends the run."""
        return None

    def lower(self) -> Predictor | None:
        """The same with one value fewer in its history, for when memory is short; None if it has no less to keep."""
        return None

    def estimate(self, history: History, step: Step, x: Tensors) -> Tensors:
        """The value at ``step``. ``history`` has at least one entry."""
        raise NotImplementedError


@dataclass(frozen=True)
class Rows:
    """What a selector chooses among.

    Attributes:
        x: what the site is given, ``(entries, rows, width)``.
        grid: how its rows lie in a picture or film; None if that is not known.
        block: what the block around the site was given, where it has the same rows; else ``x``.
        block_grid: how those lie.
        together: whether all entries must choose the same rows, since they share a table of positions.
    """

    x: torch.Tensor
    grid: Grid | None = None
    block: torch.Tensor | None = None
    block_grid: Grid | None = None
    together: bool = False


@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows of a site that are computed. They are counted over all entries: row ``r`` of entry ``e``, of ``n`` rows each, is
    ``e * n + r``.

    Attributes:
        index: ``(sequences, kept)``: the sequences that are given to the module in place of its own.
        stand_in: ``(all rows, m)``: for each row the rows whose output stands for it where no value of it is kept. None: none do,
            and a site of which nothing is kept is computed whole.
        weights: ``(all rows, m)``, of the stand-ins; None for one.
        merge: whether a row that is computed is given the mean of all rows that it stands for.
        whole: whether the sequences are those of some entries as they are, so that all that goes with an entry, of whatever shape,
            goes with it.
        note: what the selector could not do here, as a sentence for the run's report; "" for nothing.
    """

    index: torch.Tensor
    stand_in: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    merge: bool = False
    whole: bool = False
    note: str = ""

    def everything(self, x: torch.Tensor) -> bool:
        """Whether no row of ``x``, ``(entries, rows, width)``, is left out."""
        return len(self.index) == len(x) if self.whole else self.index.numel() == x.shape[0] * x.shape[1]


@dataclass(frozen=True)
class Columns:
    """What a selector of columns chooses among: the neurons of an MLP, or the keys of an attention, for each group of rows.

    Attributes:
        place: which call of the site in a pass; to remember things by.
        total: how many there are.
        dense: whether the step computes all of them anyway.
        look: measures them, which costs something. Of an MLP: what its first layer makes of the mean row of each group, before the
            activation, ``(batch, groups, total, parts)``; gated ones have two parts a neuron. Of an attention: how much the rows
            of each group attend to each key, summed, ``(batch, heads, groups, total)``.
        fixed: columns that are always computed, ``(total,)`` bool: keys of the text. None where there are none, or it is not known.
    """

    place: Hashable
    total: int
    dense: bool
    look: Callable[[], torch.Tensor]
    fixed: torch.Tensor | None = None


class Selector:
    """What of a site to compute even on a reuse step: rows (tokens of an MLP, say), or columns (its neurons)."""

    watch: Where | None = None
    """Sites whose inputs and outputs ``observe`` wants to see on computed steps."""
    shared: int = 0
    """So many blocks in a row are given the same choice, made by what the first of them was given; 0: each site its own."""
    aligned: bool = False
    """Whether two calls for one step (guidance) are given the same choice."""
    mixes: bool = False
    """Whether rows may be taken out of a module in which rows look at each other (attention)."""
    needs_grid: bool = False
    """Whether it must know how rows lie: then ``Step.latent`` tells."""
    group: int = 0
    """It chooses columns, for each group of so many rows: see ``pick``; 0: it chooses rows, see ``choose``."""

    @property
    def fills(self) -> bool:
        """Whether it says what stands for rows of which nothing is kept, so that the first step need not be computed."""
        return False

    def suits(self, site: Site) -> bool:
        """Whether it can choose rows of a site at all; the others are not governed."""
        return True

    def init(self) -> Any:
        return None

    def observe(self, state: Any, site: Site, bound: Mapping[str, Any], output: Any) -> Any:
        """Told what happened at a watched site on a computed step. Returns the new state."""
        return state

    def choose(self, state: Any, site: Site, step: Step, rows: Rows) -> tuple[Chosen | None, Any]:
        """The rows to compute, or None for none; and the new state."""
        raise NotImplementedError

    def pick(self, state: Any, site: Site, step: Step, columns: Columns) -> tuple[torch.Tensor | None, Any]:
        """The columns that are computed from now on, int64, as many for each group: of an MLP ``(batch, groups, kept)``, of an
        attention ``(batch, heads, groups, kept)``; None if all of them must be. And the new state."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Sampling:
    """What a scheduler's step is about to be given, and where it stands.

    Attributes:
        step: the step.
        output: the model's output, after guidance.
        sample: the latents.
        reused: whether the corrector's policy has reused anything at this step.
        time: from 1, pure noise, to 0.
        sigmas: the scheduler's noise levels before and after the step; None where it lists none.
        spread: how much larger than of unit variance this scheduler lets latents be, where noise is added to data and takes
            nothing away from it; 1 for all others.
    """

    step: Step
    output: torch.Tensor
    sample: torch.Tensor
    reused: bool = False
    time: float = 1.0
    sigmas: tuple[float, float] | None = None
    spread: float = 1.0


class Corrector:
    """Repairs the denoiser's output on reuse steps, or acts on what the sampler makes of it at every step.

    Each guidance branch of a run has a state of its own for ``learn`` and ``apply``, and each run one for ``sample``.
    """

    def init(self) -> Any:
        return None

    @property
    def rehearses(self) -> bool:
        """Whether it ever asks for rehearsals."""
        return type(self).rehearse is not Corrector.rehearse

    @property
    def samples(self) -> bool:
        """Whether it acts at the sampler, so that there must be one."""
        return type(self).sample is not Corrector.sample

    def misfit(self, scheduler: Any) -> str | None:
        """Why it cannot act on a scheduler's steps, as a sentence without its full stop; None if it can."""
        return None

    def rehearse(self, step: Step) -> tuple[int, ...]:
        """Estimates wanted at a step that will be computed: for each, how many of the newest entries of the history to ignore.

        Each is one cheap pass of the model with everything reused, before the real one.
        """
        return ()

    def learn(self, state: Any, step: Step, truth: torch.Tensor, rehearsed: tuple[torch.Tensor, ...]) -> Any:
        """Told the computed output and the rehearsed ones (empty where there was no history)."""
        return state

    def apply(self, state: Any, step: Step, estimate: torch.Tensor) -> torch.Tensor:
        """The repaired output of a reuse step."""
        return estimate

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The output and the latents that the scheduler gets in place of those given, and the new state. Asked at every step."""
        return given.output, given.sample, state

    def lag(self, state: Any) -> float:
        """How many times as large as listed the noise level of the latents is, for the model to be told, after ``sample`` has
        left some of the scheduler's way for later. State as of ``sample``."""
        return 1.0


def _hold() -> Predictor:
    from omnicache.predictors.hold import Hold

    return Hold()


@value
class Policy:
    """One clause of a method.

    Attributes:
        when: which steps compute.
        where: which sites are governed.
        how: what stands in for a value that is not computed.
        which: rows or columns of each site that are computed even then.
        fix: a repair of the denoiser's output.
        ahead: at most so many reuse steps in a row are evaluated at once, in one batch at the first of them; 0 one by one. For
            places that free the model of its latents when they are reused; elsewhere the trace says that it was not done.
    """

    when: Trigger
    where: Where
    how: Predictor = field(default_factory=_hold)
    which: Selector | None = None
    fix: Corrector | None = None
    ahead: Annotated[int, schema.Range(0)] = 0
