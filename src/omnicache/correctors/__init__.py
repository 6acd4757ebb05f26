"""Repairs of the denoiser's output."""

from omnicache.correctors.noise import NoiseCorrection

__all__ = ["NoiseCorrection"]
