"""What triggers may ask about a step: how much something has changed since an earlier one, per sample."""

from omnicache.signals.chi_square import ChiSquareChange
from omnicache.signals.content import ContentChange
from omnicache.signals.frames import FrameMotion
from omnicache.signals.latent import LatentChange
from omnicache.signals.modulated import ModulatedInputChange
from omnicache.signals.output import OutputChange, OutputSize
from omnicache.signals.probe import ProbeChange
from omnicache.signals.time import TimeChange

__all__ = [
    "ChiSquareChange",
    "ContentChange",
    "FrameMotion",
    "LatentChange",
    "ModulatedInputChange",
    "OutputChange",
    "OutputSize",
    "ProbeChange",
    "TimeChange",
]
