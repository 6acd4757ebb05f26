"""ERTACache's tables: the steps whose output can be reused, the error that this makes, and how far to go on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch

from omnicache.calibrate.record import each_run, one_denoiser, watched
from omnicache.correctors import Rectify, StepSizes
from omnicache.correctors.rectify import channel_axis
from omnicache.errors import OmniCacheError
from omnicache.granularity import Denoiser
from omnicache.plan import Plan
from omnicache.policy import Corrector, Policy, Sampling
from omnicache.registry import Choice, Range
from omnicache.triggers import Every

Numbers = tuple[float, ...]
NO_STEPS = 'adjust="none"'


def calibrate_ertacache(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    threshold: Annotated[float, Range(0)] = 0.1,
    rectify: Annotated[str, Choice(("channel", "scalar", "none"))] = "channel",
    adjust: Annotated[str, Choice(("rectified", "raw", "none"))] = "none",
) -> Plan:
    """Replay runs as if steps were reused, and measure what that does (arXiv 2508.21091).

    Up to four runs an input, in which everything is computed: an uncached one; one that decides from step to step, whose choices
    are put to the vote; and with the schedule that won one for the expected errors and one for the shares of steps. All is measured
    on what guidance has made of the outputs: guidance is linear and its weights sum to 1, so keeping increments of each pass comes
    to the same.

    Args:
        threshold: the paper's lambda: a step is reused while the increment kept differs from its own by less than so much of the
            uncached run's. The paper has 0.1 and 0.18 for Open-Sora, 0.3 for CogVideoX, 0.08 for Wan2.1-1.3B, 0.6 for FLUX.
        rectify: an expected error for each channel, one for all, or none.
        adjust: how far reused steps go: "raw" by their error, as the paper has it; "rectified" by the error that is left after
            rectification. Both need an Euler flow sampler. "none" leaves the scheduler's steps, which came nearer to uncached
            pictures where we tried.
    """
    from omnicache.methods.ertacache import ertacache

    one_denoiser(pipe)
    if adjust != "none" and (why := StepSizes(()).misfit(pipe.scheduler)) is not None:
        raise OmniCacheError(f"ertacache: {why.replace('phi=()', NO_STEPS)}.")

    def replays(label: str, make: Callable[[int], Replay]) -> list[Replay]:
        done = []
        for i, run in each_run(pipe, inputs, call, progress, label):
            replay = make(i)
            with watched(pipe, Policy(Every(1), Denoiser(), fix=replay)):
                run()
            done.append(replay)
        return done

    plain = replays("uncached      ", lambda _: Replay(lambda step, change: False))
    total = len(plain[0].marks)
    if not total:
        raise OmniCacheError(f"What {type(pipe.scheduler).__name__}.step is given could not be seen, so nothing was measured.")

    def decides(i: int) -> Replay:
        return Replay(lambda step, change: change < threshold * plain[i].sizes[step])

    votes = replays("steps to reuse", decides)
    schedule = "".join("." if 2 * sum(v.marks[i] == "." for v in votes) > len(votes) else "#" for i in range(total))
    made = ertacache(schedule=schedule)

    def scheduled(repair: Rectify | None) -> Callable[[int], Replay]:
        return lambda _: Replay(lambda step, change: schedule[step] == ".", repair, rectify != "scalar")

    runs: list[Replay] = []
    repair = None
    if rectify != "none":
        runs = replays("their errors  ", scheduled(None))
        lines = [_sum([r.lines[i] for r in runs]).fit() if mark == "." else None for i, mark in enumerate(schedule)]
        repair = Rectify(tuple(n and n[0] for n in lines), tuple(n and n[1] for n in lines))
        made = ertacache(schedule=schedule, slope=repair.slope, offset=repair.offset)
    if adjust != "none":
        runs = replays("how far to go ", scheduled(repair))
        phi = tuple(
            sum(r.share(i, adjust == "raw") for r in runs) / len(runs) if mark == "." and i < total - 1 else None
            for i, mark in enumerate(schedule)
        )
        made = ertacache(**{**made.options, "phi": phi})
    error = [
        sum(r.errors[i][0] / r.sizes[i] for r in runs) / len(runs) if m == "." and runs else 0.0 for i, m in enumerate(schedule)
    ]
    return made.with_measured(schedule=schedule, reuses=schedule.count("."), error=error, inputs=len(inputs), threshold=threshold)


@dataclass(frozen=True)
class Line:
    """Sums for a least-squares line of errors on outputs, for each channel."""

    count: int
    sums: torch.Tensor
    """``(4, channels)``: of outputs, errors, squares of outputs, and products."""

    @staticmethod
    def of(output: torch.Tensor, error: torch.Tensor, by_channel: bool = True) -> Line:
        v, e = (t.detach().cpu().double().movedim(channel_axis(t), 0).flatten(1) for t in (output, error))
        if not by_channel:
            v, e = v.flatten()[None], e.flatten()[None]
        return Line(v.shape[1], torch.stack((v.sum(1), e.sum(1), (v * v).sum(1), (v * e).sum(1))))

    def fit(self) -> tuple[Numbers, Numbers]:
        """Slopes and offsets."""
        v, e, vv, ve = self.sums / self.count
        spread = vv - v * v
        flat = spread <= 1e-12 * vv
        slope = torch.where(flat, 0.0, (ve - v * e) / torch.where(flat, 1.0, spread))
        return tuple(slope.tolist()), tuple((e - slope * v).tolist())


def _sum(lines: Sequence[Line]) -> Line:
    return Line(sum(n.count for n in lines), torch.stack([n.sums for n in lines]).sum(0))


@dataclass(frozen=True, eq=False)
class Replay(Corrector):
    """Acts in a run that computes everything as if ``reuses(step, change)`` had said which steps are reused; ``change`` is how far
    the increment kept is from the step's own, as the sum of the absolute differences.

    Attributes:
        repair: of what is reused.
        by_channel: whether channels have lines of their own.
        marks, sizes, moves: per step what was done, the size of its increment, and how far its output is from that of the step
            before.
        lines: per reused step, errors by outputs.
        errors: per reused step the size of the error before and after the repair.
    """

    reuses: Callable[[int, float], bool]
    repair: Rectify | None = None
    by_channel: bool = True
    marks: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    lines: dict[int, Line] = field(default_factory=dict)
    errors: dict[int, tuple[float, float]] = field(default_factory=dict)

    def sample(self, state: Any, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The state is the increment kept, and the true output of the step before."""
        kept: torch.Tensor | None
        before: torch.Tensor | None
        kept, before = state if state is not None else (None, None)
        i, x, v = given.step.index, given.sample, given.output
        if v.shape != x.shape:
            raise OmniCacheError(
                f"ertacache keeps what the model adds to its latents, and its output, {tuple(v.shape)}, has not the shape of the "
                f"latents, {tuple(x.shape)}."
            )
        own = v - x
        self.sizes.append(_size(own))
        self.moves.append(_size(v - before) if before is not None else 0.0)
        if kept is None or not self.reuses(i, _size(kept - own)):
            self.marks.append("#")
            return v, x, (own, v)
        self.marks.append(".")
        stands_in = x + kept
        self.lines[i] = Line.of(stands_in, stands_in - v, self.by_channel)
        out = self.repair.apply(None, given.step, stands_in) if self.repair is not None else stands_in
        self.errors[i] = _size(stands_in - v), _size(out - v)
        return out, x, (kept, v)

    def share(self, i: int, raw: bool) -> float:
        """The paper's phi: how much of the way to go, given the error at a step beside the change to the next step's output."""
        error, move = self.errors[i][0 if raw else 1], self.moves[i + 1]
        return min(max(1 - error / move, 0.0), 1.0) if move > 0 else float(error == 0)


def _size(t: torch.Tensor) -> float:
    return float(t.abs().sum())
