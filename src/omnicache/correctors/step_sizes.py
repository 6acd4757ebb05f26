from __future__ import annotations

import copy
from typing import Annotated, Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.policy import Corrector, Sampling, value
from omnicache.schema import Range

Share = Annotated[float, Range(0, 1)]


@value
class StepSizes(Corrector):
    """Goes only a share of the way at reused steps of an Euler sampler, and what is left in the steps after (ERTACache).

    With the noise level ``sigma`` as listed and ``lag * sigma`` as it is, a step of ``phi`` ends at
    ``lag * (sigma - phi * (sigma - next))``: all later steps are as much longer, and the last one goes to the end. So their sum is
    that of the scheduler's. The model is told the time where the latents are.

    Attributes:
        phi: per step the share; None for 1. Steps that are computed after all are whole.
    """

    phi: tuple[Share | None, ...]

    def init(self) -> float:
        return 1.0

    def for_steps(self, total: int) -> StepSizes:
        if not any(self.phi):
            return self
        raise OmniCacheError(f"sizes that are chosen for {len(self.phi)} steps hold for no others")

    def misfit(self, scheduler: Any) -> str | None:
        if _is_euler(scheduler):
            return None
        return (
            f"it changes the sizes of a flow sampler's Euler steps, and {type(scheduler).__name__} makes others. Leave the "
            "steps as they are (phi=()), or take FlowMatchEulerDiscreteScheduler"
        )

    def sample(self, state: float, given: Sampling) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The state is the lag."""
        i = given.step.index
        phi = self.phi[i] if given.reused and i < len(self.phi) else None
        if given.sigmas is None:
            return given.output, given.sample, state
        now, after = given.sigmas
        if phi is None or after <= 0:
            phi = 1.0
        factor = phi * state
        lag = state * (now - phi * (now - after)) / after if after > 0 else 1.0
        return given.output if factor == 1.0 else given.output * factor, given.sample, lag

    def lag(self, state: float) -> float:
        return state


def _is_euler(scheduler: Any) -> bool:
    """Whether times are noise levels that fall, and two steps of a copy go where Euler's would."""
    times, sigmas = getattr(scheduler, "timesteps", None), getattr(scheduler, "sigmas", None)
    if not isinstance(times, torch.Tensor) or not isinstance(sigmas, torch.Tensor) or min(len(times), len(sigmas)) < 3:
        return False
    ratio = float(times[0]) / max(float(sigmas[0]), 1e-9)
    if not float(sigmas[0]) <= 1.0 + 1e-6 or any(abs(float(times[i]) - ratio * float(sigmas[i])) > 1e-3 * ratio for i in (1, 2)):
        return False
    trial = copy.deepcopy(scheduler)
    trial._step_index = trial._begin_index = None
    x = torch.tensor([[[[0.5]]]], device=sigmas.device)
    try:
        for i, output in enumerate((x + 1, 3 * x - 4)):
            wanted = x + (sigmas[i + 1] - sigmas[i]) * output
            x = trial.step(output, times[i], x, return_dict=False)[0]
            if not torch.allclose(x.to(wanted), wanted, rtol=1e-4, atol=1e-6):
                return False
    except Exception:  # one that wants more than others, or is not ready to step
        return False
    return float(sigmas[1]) < float(sigmas[0])
