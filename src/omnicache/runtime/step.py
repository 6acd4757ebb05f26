"""Where a denoising run stands: one step is one evaluation of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicache.models.latent import Latent


@dataclass(frozen=True)
class Step:
    """One evaluation of one denoiser.

    Attributes:
        index: 0 for the first (noisiest) evaluation of the run, in sampling order.
        total: evaluations of the whole run as the scheduler announced them, or None when nobody said.
        time: the timestep handed to the model, as a number, or None when unknown.
        sigma: the scheduler's noise level at this step, or None when it has none.
        branch: which guidance pass this is: a name given by the pipeline ("cond"), or its place among the calls of a step.
        flow: whether ``sigma`` is the share of noise on a straight path (flow matching), and not its ratio to the picture.
        latent: what the denoiser is given, as a picture or film; None where no part of the plan asks for it, or it is not known.
    """

    index: int
    total: int | None = None
    time: float | None = None
    sigma: float | None = None
    branch: str | int = 0
    flow: bool = False
    latent: Latent | None = None

    @property
    def is_last(self) -> bool:
        """True only when the total is known and this is its last evaluation."""
        return self.total is not None and self.index == self.total - 1

    @property
    def progress(self) -> float:
        """Share of the run that lies behind, in [0, 1); 0 while the total is unknown."""
        return self.index / self.total if self.total else 0.0

    @property
    def mix(self) -> tuple[float, float] | None:
        """How much picture and how much noise the latent is made of, ``(a, b)`` up to a common factor; None if not known."""
        if self.sigma is None:
            return None
        return (1 - self.sigma, self.sigma) if self.flow else (1.0, self.sigma)

    def position(self, axis: str) -> float:
        """Where the step lies on ``axis``: "step" (its index) or "sigma" (its noise level; the index where there is none)."""
        return self.sigma if axis == "sigma" and self.sigma is not None else float(self.index)
