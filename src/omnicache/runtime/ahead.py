"""Reuse steps in a row, evaluated at once at the first of them (the parallel form of FasterDiffusion, arXiv 2312.09608).

Where what is reused frees the model of its latents, all that such a step has of its own is its time, and the times of a run are
listed before it begins. So one batch answers several steps: the arguments are repeated, each time goes with its part, and kept
values are handed out in as many copies. The latents of steps to come are not known, and the model is given NaN for them: an output
that is finite proves that nobody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from omnicache.policy import Decision, Policy
from omnicache.runtime.branch import BranchState
from omnicache.runtime.call import Call
from omnicache.runtime.evaluation import Pass
from omnicache.runtime.streams import rebuild, tensors_of
from omnicache.runtime.trace import Record

if TYPE_CHECKING:
    from omnicache.runtime.run import Run
    from omnicache.runtime.session import Session


class Ahead:
    """Evaluates reuse steps of a policy ahead of time, and answers their calls.

    Args:
        session: whose evaluations.
        policy: the plan's only one.

    Attributes:
        refused: why it cannot be done on this model, as a sentence; None as long as it can.
    """

    def __init__(self, session: Session, policy: Policy):
        self.session, self.policy = session, policy
        self.refused: str | None = None
        self._proven = False

    def answer(self, run: Run, branch: BranchState, record: Record, call: Call) -> Any:
        """The output of a reuse step, from a batch of now or earlier; None where the step is to be evaluated by itself."""
        step = record.step
        if run.triggers[self.policy.when].decide(step, {}) is Decision.COMPUTE:
            branch.ahead.clear()
            return None
        if step.index not in branch.ahead:
            self._evaluate(run, branch, record, call)
        elif not _alike(branch.given, _others(call)):
            self._refuse(run, branch, "what else the model is given changes from step to step")
        found = branch.ahead.pop(step.index, None)
        if found is not None:
            record.reused += 1
        return found

    def _refuse(self, run: Run, branch: BranchState, why: str, always: bool = True) -> None:
        branch.ahead.clear()
        sentence = f"Reuse steps were evaluated one by one: {why}."
        run.trace.note(sentence)
        if always:
            self.refused = sentence

    def _evaluate(self, run: Run, branch: BranchState, record: Record, call: Call) -> None:
        """Evaluate this step and those that follow it, as far as they are known to be reused."""
        if self.refused is not None:
            return run.trace.note(self.refused)
        if run.clock is None or call.time is None or not run.tells or not run.clock.shows(run.start, call.time):
            return self._refuse(run, branch, "the times of those to come are not known", always=False)
        if run.ranks:
            return self._refuse(run, branch, "several processes share each sequence", always=False)
        foreseen, first = run.keeper.window.foreseen, record.step.index
        last = first
        while last + 1 < first + self.policy.ahead and foreseen(self.policy.when, last + 1) is Decision.REUSE:
            last += 1
        if last == first:
            return None
        coming = range(first, last + 1)
        repeated = _repeated(call, [run.place(i).time or 0.0 for i in coming])
        if repeated is None:
            return self._refuse(run, branch, "its arguments are not known to be a batch of latents and their time")
        trial = Record(record.step)
        try:
            p = Pass(run, branch, trial, Decision.REUSE, copies=len(coming))
            out = p.evaluate(lambda: self.session.passed(p, repeated))
        except (RuntimeError, ValueError) as problem:  # memory ran out, or the model does not take such a batch
            return self._refuse(run, branch, f"{type(problem).__name__} in a batch of them")
        if trial.computed or not trial.reused:
            return self._refuse(run, branch, "some of what reads the latents was not kept", always=False)
        parts = tensors_of(out)
        if not parts or any(t.ndim == 0 or t.shape[0] % len(coming) for t in parts):
            return self._refuse(run, branch, "its output is no batch")
        if not self._proven and not all(bool(torch.isfinite(t).all()) for t in parts):
            return self._refuse(run, branch, "the model reads its latents outside of what is reused, too")
        self._proven, branch.given = True, _others(call)
        columns = zip(*(t.chunk(len(coming)) for t in parts), strict=True)
        branch.ahead = {i: rebuild(out, column) for i, column in zip(coming, columns, strict=True)}
        return None


def _latents(call: Call) -> str:
    """The name of the first argument: what a denoiser denoises."""
    return next(iter(call.signature.names), "")


def _others(call: Call) -> dict[str, Any]:
    """The arguments that must be the same at all steps."""
    return {n: v for n, v in call.bound.items() if n not in (_latents(call), call.time_name)}


def _repeated(call: Call, listed: list[float]) -> Call | None:
    """One call for several times, the first of which is that of ``call``; None where it is not clear how it is to be given."""
    name, x, count = call.time_name, call.bound.get(_latents(call)), len(listed)
    if name is None or call.time is None or not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim < 2:
        return None
    when, batch = call.bound[name], x.shape[0]
    if isinstance(when, torch.Tensor) and when.numel() != 1 and tuple(when.shape) != (batch,):
        return None
    unit = 1.0 if abs(call.time - listed[0]) <= abs(1000 * call.time - listed[0]) else 1e-3  # some are told t / 1000
    kind = when.dtype if isinstance(when, torch.Tensor) else torch.tensor(when).dtype
    times = torch.tensor([t * unit for t in listed], device=when.device if isinstance(when, torch.Tensor) else x.device)
    others = _others(call)
    held = tuple(torch.cat([t] * count) if t.ndim and t.shape[0] == batch else t for t in tensors_of(others))
    nobody = x.new_full((count * batch, *x.shape[1:]), torch.nan)
    return call.given(**{**rebuild(others, held), _latents(call): nobody, name: times.to(kind).repeat_interleave(batch)})


def _alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if before.keys() != now.keys():
        return False
    pairs = [(tensors_of(before[n]), tensors_of(now[n])) for n in before]
    if any(len(a) != len(b) for a, b in pairs):
        return False
    return all(s is t or (s.shape == t.shape and torch.equal(s, t)) for a, b in pairs for s, t in zip(a, b, strict=True))
