"""How to fill in."""

from omnicache.predictors.from_kept import FromKept
from omnicache.predictors.hold import Hold
from omnicache.predictors.linear import Linear
from omnicache.predictors.residual import Residual
from omnicache.predictors.taylor import Taylor

__all__ = ["FromKept", "Hold", "Linear", "Residual", "Taylor"]
