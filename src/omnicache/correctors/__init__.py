"""Repairs of the denoiser's output, and of what the sampler makes of it."""

from omnicache.correctors.in_turn import InTurn
from omnicache.correctors.multistep import Multistep
from omnicache.correctors.noise import NoiseCorrection
from omnicache.correctors.noise_scaling import NoiseScaling
from omnicache.correctors.prior_noise import PriorNoise
from omnicache.correctors.rectify import Rectify
from omnicache.correctors.step_sizes import StepSizes

__all__ = ["InTurn", "Multistep", "NoiseCorrection", "NoiseScaling", "PriorNoise", "Rectify", "StepSizes"]
