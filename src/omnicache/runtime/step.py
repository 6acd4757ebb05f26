"""Where a denoising run stands: one step is one evaluation of one model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One evaluation of one denoiser.

    Attributes:
        index: 0 for the first (noisiest) evaluation of the run, in sampling order.
        total: evaluations of the whole run as the scheduler announced them, or None when nobody said.
        time: the timestep handed to the model, as a number, or None when unknown.
        sigma: the scheduler's noise level at this step, or None when it has none.
        branch: which guidance pass this is: a name given by the pipeline ("cond"), or its place among the calls of a step.
    """

    index: int
    total: int | None = None
    time: float | None = None
    sigma: float | None = None
    branch: str | int = 0

    @property
    def is_last(self) -> bool:
        """True only when the total is known and this is its last evaluation."""
        return self.total is not None and self.index == self.total - 1

    @property
    def progress(self) -> float:
        """Share of the run that lies behind, in [0, 1); 0 while the total is unknown."""
        return self.index / self.total if self.total else 0.0

    def position(self, axis: str) -> float:
        """Where the step lies on ``axis``: "step" (its index) or "sigma" (its noise level; the index where there is none)."""
        return self.sigma if axis == "sigma" and self.sigma is not None else float(self.index)
