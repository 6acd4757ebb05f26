"""Classifier-free guidance in one run: which of its branches is conditional, and one of them worked out from the other.

The two branches of a step are two calls of the denoiser, or the two halves of one batch. Of two calls the first runs, and the
second is answered; of two halves one runs alone, and its output is joined with the estimate of the other. Nothing of this is known
when a run begins: that two halves are equal is seen in what the denoiser is given, that the model keeps halves apart is proved by
running one of them, and which is conditional shows in what the scheduler is handed, ``a + c (b - a)``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omnicache.errors import is_out_of_memory
from omnicache.models.latent import doubled_rows
from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Tensors
from omnicache.runtime.blend import blend_of
from omnicache.runtime.branch import BranchState
from omnicache.runtime.call import Call
from omnicache.runtime.executors import Cell
from omnicache.runtime.halves import Half, Part, Witness, catch_up, drop_stale, near
from omnicache.runtime.pooling import pool
from omnicache.runtime.store import own
from omnicache.runtime.streams import Shape, rebuild, tensors_of

if TYPE_CHECKING:
    import torch

    from omnicache.runtime.evaluation import Pass

Through = Callable[["Pass", Call], Any]
"""Runs the denoiser on a call, in a pass."""
NAMES = ("cond", "uncond")
"""What pipelines call the two branches, conditional first, where they call them anything."""


@dataclass
class Halving:
    """What a session has found out of its model on half of a batch.

    Attributes:
        tried: whether it was tried.
        why: why a half cannot be run alone; None if it can.
        divisible: the policies and sites whose values for a half are rows of those for the whole.
    """

    tried: bool = False
    why: str | None = None
    divisible: set[Part] = field(default_factory=set)


class Guided:
    """Guidance in one run.

    Args:
        found: the policy between the branches, and its site; None if values are only pooled.
        pools: whether sites keep the mean of the branches.
    """

    def __init__(self, found: tuple[Policy, Site] | None, pools: bool):
        self.policy, self.site = found if found is not None else (None, None)
        self.pools = pools
        self.index = -1  # the step in progress
        self.made: dict[Hashable, tuple[Pass, Shape]] = {}  # the branches that were evaluated whole at it
        self.roles: dict[bool, tuple[Any, Any]] = {}  # by whether they are halves: the conditional branch, and the other one
        self.here: set[Hashable] = set()  # the branches that were called at it
        self.calls = 0  # how many were at the step before
        self.frozen = True  # whether the branch that has run at it may stand for the other one: see ``_frozen``

    def __call__(self, p: Pass, call: Call, through: Through) -> Any:
        """One evaluation of a branch, or of both as halves: computed, or as much of it as must be."""
        if p.step.index != self.index:
            self.settle(None)
            self.index, self.calls, self.here = p.step.index, len(self.here), set()
        if p.forced is not None:
            return through(p, call)
        self.here.add(p.step.branch)
        if p.branch.doubled is None:
            rows = doubled_rows(p.session.model.model, call.bound)
            devices = [t.device for t in tensors_of(list(call.bound.values()))]
            p.branch.doubled = 0 if not devices or p.run.ranks.any(not rows, devices[0]) else rows
        if self._wants(p):
            out = self._by_half(p, call, through) if p.branch.doubled else self._answer(p)
            if out is not None:
                return out
        return self._compute(p, call, through)

    def _wants(self, p: Pass) -> bool:
        return self.policy is not None and self.site is not None and not p.bars(self.site) and p.reuses(self.policy)

    def _cell(self, branch: BranchState) -> Cell:
        assert self.policy is not None and self.site is not None
        branch.guidance = branch.guidance or Cell(self.policy, self.site)
        return branch.guidance

    def _direction(self, halves: bool) -> tuple[Any, Any] | None:
        """The branch that runs and the one that is estimated; None if that is not known."""
        roles = self.roles.get(halves)
        return roles if roles is None or self.site is None or self.site.layout == "conditional" else roles[::-1]

    def _ready(self, p: Pass, cell: Cell, given: Tensors | None = None) -> bool:
        if not cell.policy.how.remembers:
            return True
        fits = given is None or cell.counts == tuple(t.numel() for t in given)
        return cell.ready(p.lag) and fits

    # --- reused --------------------------------------------------------------------------------------------------------

    def _by_half(self, p: Pass, call: Call, through: Through) -> Any:
        """Run one half and estimate the other. None if that cannot be done yet, or at all."""
        whole, halving, direction = p.branch, p.session.halving, self._direction(halves=True)
        if halving.why is not None or direction is None:
            p.trace.note(f"Both halves of guidance were computed: {halving.why or self._unclear(p)}.")
            return None
        if not halving.tried:
            p.trace.note("Both halves of guidance were computed until a step that computes all has proved that one can run alone.")
            return None
        if not self._ready(p, cell := self._cell(whole)):
            return None
        half = Half(direction[0])
        view = half.call(call, whole.doubled or 0)
        part = whole.halves.get(half.index)
        if part is None:
            part = whole.halves[half.index] = p.run.new_state(view)
        catch_up(part, whole, half, halving.divisible, p.run)
        drop_stale(part, p.run, p.step.index)
        if not self._frozen(p, part):
            p.trace.note("Both halves of guidance were computed where the mean of the two was not at hand.")
            return None
        p.branch = part
        try:
            out = through(p, view)
        finally:
            p.branch = whole
        part.at, whole.missed = p.step.index, True
        p.count("partial", self.policy)
        given = tensors_of(out)
        return rebuild(out, half.join(given, cell.estimate(p, given)))

    def _answer(self, p: Pass) -> Any:
        """Answer the second of two calls from what the first has returned. None if that cannot be done."""
        assert self.policy is not None
        others = [(key, made) for key, made in self.made.items() if key != p.step.branch]
        direction = self._direction(halves=False)
        mirrors = self.policy.how.mirrors
        if self.calls > 2 or (self.calls == 2 and direction is None and not mirrors):
            why = "there are more than two a step" if self.calls > 2 else self._unclear(p)
            p.trace.note(f"All calls of guidance were computed: {why}.")
        elif not others and direction is not None and direction[1] == p.step.branch and not mirrors:
            p.trace.note("One branch of guidance is worked out from the other, which is called after it: both were computed.")
        if self.calls != 2 or len(others) != 1 or not self.frozen:
            return None
        (key, (before, shape)), cell = others[0], self._cell(p.branch)
        given = before.branch.output
        if (not mirrors and direction != (key, p.step.branch)) or not self._ready(p, cell, given):
            return None
        p.branch.missed = True
        p.count("reused", self.policy)
        return shape.fill(cell.estimate(p, given))

    def _frozen(self, p: Pass, runs: BranchState) -> bool:
        """Whether the branch that runs takes the mean of both wherever it should: if not, it must not stand for the other one."""
        pooled = {id(q) for q in p.session.plan.policies if q.how.pools is not None and p.reuses(q)}
        cells = [c for c in runs.named_cells().values() if id(c.policy) in pooled] if pooled else []
        known = [bool(c.history) and c.history[0].step.index < p.step.index for c in cells]
        return all(known) and pooled == {id(c.policy) for c in cells}

    def _unclear(self, p: Pass) -> str:
        if p.run.clock is None:
            return "which is conditional shows in what a scheduler is handed, and there is none; pass the pipeline"
        return (
            "which is conditional does not show in what the scheduler was handed (the scale is between 0 and 1, or the pipeline "
            "does more with the two than to blend them)"
        )

    # --- computed ------------------------------------------------------------------------------------------------------

    def _compute(self, p: Pass, call: Call, through: Through) -> Any:
        branch, half = p.branch, Half(0)
        if branch.doubled or not self._wants(p):
            self._even_out(p)
        if branch.missed:
            drop_stale(branch, p.run, p.step.index)
            branch.missed = False
        self.frozen = self._frozen(p, branch)  # before values are let go of that are used for the last time
        view = self._to_prove(p, half, call)
        p.witness = Witness(half) if view is not None else None
        try:
            out = through(p, call)
        finally:
            witness, p.witness = p.witness, None
        branch.at, branch.output = p.step.index, own(tensors_of(out))
        self.made[p.step.branch] = p, Shape(out)
        if self.policy is not None:
            p.count("computed")
            if self.calls == 2 and len(self.here) == 1 and self._wants(p) and self._leads(p):
                p.awaits = self.policy.when
        if view is not None and witness is not None and not p.record.partial:
            self._prove(p, half, view, through, witness)
        return out

    def _even_out(self, p: Pass) -> None:
        """Where both branches run again, after one was left out of steps that computed something, compute that for both: a step in
        which one branch is fresher than the other would show in their difference, which guidance multiplies."""
        left = [b.at for b in p.run.branches.values() if b.missed]
        for trigger, state in p.run.triggers.items():
            if left and state.last is not None and state.last.index > min(left) and p.decision(trigger) is Decision.REUSE:
                state.settle(Decision.COMPUTE)

    def _leads(self, p: Pass) -> bool:
        """Whether the other call of this step can be answered from this one."""
        assert self.policy is not None
        direction = self._direction(halves=False)
        return self.policy.how.mirrors or (direction is not None and direction[0] == p.step.branch)

    def _to_prove(self, p: Pass, half: Half, call: Call) -> Call | None:
        """The call on one half, on copies, if it is to be tried in this step."""
        halving = p.session.halving
        if self.policy is None or not p.branch.doubled or halving.tried or not p.run.keeper.window.reuses(self.policy):
            return None
        try:
            return _copied(half.call(call, p.branch.doubled))
        except Exception as problem:
            halving.tried, halving.why = True, f"what the model is given cannot be halved ({type(problem).__name__}: {problem})"
            return None

    def _prove(self, p: Pass, half: Half, view: Call, through: Through, witness: Witness) -> None:
        """Run one half, once in a session: it must give what the whole batch gave for it."""
        halving, whole, ranks = p.session.halving, p.branch.output, p.run.ranks
        trial = p.beside(p.run.new_state(view))
        trial.witness = Witness(None)
        p.record.rehearsals += 1
        try:
            alone = tensors_of(through(trial, view))
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            halving.why = f"on half of the batch the model raises {type(problem).__name__}"
        else:
            same = [
                t.shape[0] == 2 * a.shape[0] and near(half.of(t), a)
                for t, a in zip(whole, alone, strict=False)
                if t.ndim and a.ndim
            ]
            good = len(alone) == len(whole) == len(same) and all(same)
            if ranks.any(not good, whole[0].device):
                halving.why = "half of the batch alone does not give what it gives beside the other half"
            halving.divisible = witness.agreeing(trial.witness, ranks)
        halving.tried = True

    # --- learned -------------------------------------------------------------------------------------------------------

    def settle(self, handed: torch.Tensor | None) -> None:
        """A step is over: learn from it, which branch is which first of all, by the output ``handed`` to the scheduler."""
        made, self.made = self.made, {}
        if not made:
            return
        passes = [p for p, _ in made.values()]
        p, halves = passes[0], bool(passes[0].branch.doubled)
        outs: dict[Any, Tensors] = {key: q.branch.output for key, (q, _) in made.items()}
        if len(made) == 1 and halves:
            outs = {i: tuple(Half(i).of(t) for t in p.branch.output) for i in (0, 1)}
        alike = len({tuple(t.shape for t in out) for out in outs.values()}) == 1
        known = len(outs) == 2 and alike and (len(made) == 1 or not any(q.branch.doubled for q in passes))
        if known and set(self.roles.get(halves, ())) != set(outs):
            self.roles.pop(halves, None)
            if (roles := self._told(outs, handed, p)) is not None:
                self.roles[halves] = roles
        direction = self._direction(halves) if known else None
        if self.policy is not None and direction is not None:
            runs, other = direction
            target = p if halves else made[other][0]
            self._cell(target.branch).learn(target, outs[runs], outs[other])
        elif self.policy is not None and len(self.here) == 1 and not halves and not self.roles and self._wants(p):
            p.trace.note("Nothing of guidance was reused: there is none, or not as two calls a step or as two halves of a batch.")
        if self.pools and len(outs) > 1:
            pool(passes, clear=known and not (halves and direction is None))
        for q in passes:
            q.branch.output = ()

    def _told(self, outs: dict[Any, Tensors], handed: torch.Tensor | None, p: Pass) -> tuple[Any, Any] | None:
        """Which of two branches is conditional, by their names or by what was made of them; None if that does not tell."""
        a, b = outs
        if {a, b} == set(NAMES):
            return NAMES
        if not outs[a]:
            return None
        c = blend_of(handed, outs[a][0], outs[b][0], p.run.ranks)
        return None if c is None or -1e-3 < c < 1.001 else (b, a) if c > 1 else (a, b)


def _copied(call: Call) -> Call:
    """The same call on copies: the model may write to what it is given before it is run again."""
    args, kwargs = rebuild((call.args, call.kwargs), own(tensors_of((call.args, call.kwargs))))
    return Call(call.plain, args, kwargs, call.signature)
