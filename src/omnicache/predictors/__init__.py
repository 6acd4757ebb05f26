"""How to fill in."""

from omnicache.predictors.adams_bashforth import AdamsBashforth
from omnicache.predictors.affine import Affine
from omnicache.predictors.aligned import Aligned
from omnicache.predictors.bands import Bands
from omnicache.predictors.constant import Constant
from omnicache.predictors.extrapolate import Extrapolate
from omnicache.predictors.foca import Foca
from omnicache.predictors.frequencies import Frequencies
from omnicache.predictors.from_kept import FromKept
from omnicache.predictors.hermite import Hermite
from omnicache.predictors.hold import Hold
from omnicache.predictors.linear import Linear
from omnicache.predictors.pooled import Pooled
from omnicache.predictors.residual import Residual
from omnicache.predictors.same import Same
from omnicache.predictors.scale_shift import ScaleShift
from omnicache.predictors.taylor import Taylor
from omnicache.predictors.zero import Zero

__all__ = [
    "AdamsBashforth",
    "Affine",
    "Aligned",
    "Bands",
    "Constant",
    "Extrapolate",
    "Foca",
    "Frequencies",
    "FromKept",
    "Hermite",
    "Hold",
    "Linear",
    "Pooled",
    "Residual",
    "Same",
    "ScaleShift",
    "Taylor",
    "Zero",
]
