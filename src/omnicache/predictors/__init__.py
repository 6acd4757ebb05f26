"""How to fill in."""

from omnicache.predictors.adams_bashforth import AdamsBashforth
from omnicache.predictors.aligned import Aligned
from omnicache.predictors.foca import Foca
from omnicache.predictors.frequencies import Frequencies
from omnicache.predictors.from_kept import FromKept
from omnicache.predictors.hermite import Hermite
from omnicache.predictors.hold import Hold
from omnicache.predictors.linear import Linear
from omnicache.predictors.residual import Residual
from omnicache.predictors.taylor import Taylor

__all__ = [
    "AdamsBashforth",
    "Aligned",
    "Foca",
    "Frequencies",
    "FromKept",
    "Hermite",
    "Hold",
    "Linear",
    "Residual",
    "Taylor",
]
