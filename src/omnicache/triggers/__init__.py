"""When to compute."""

from omnicache.triggers.above import Above
from omnicache.triggers.accumulate import Accumulate
from omnicache.triggers.between import Between
from omnicache.triggers.codebook import Codebook
from omnicache.triggers.combine import And, Not, Or
from omnicache.triggers.every import Every
from omnicache.triggers.first import First
from omnicache.triggers.foresight import Foresight
from omnicache.triggers.last import Last
from omnicache.triggers.magnitudes import Magnitudes
from omnicache.triggers.outside import Outside
from omnicache.triggers.power_law import PowerLaw
from omnicache.triggers.ramp import Ramp
from omnicache.triggers.responds import Responds
from omnicache.triggers.spells import Spells
from omnicache.triggers.steps import Steps
from omnicache.triggers.table import Table
from omnicache.triggers.verify import Verify

__all__ = [
    "Above",
    "Accumulate",
    "And",
    "Between",
    "Codebook",
    "Every",
    "First",
    "Foresight",
    "Last",
    "Magnitudes",
    "Not",
    "Or",
    "Outside",
    "PowerLaw",
    "Ramp",
    "Responds",
    "Spells",
    "Steps",
    "Table",
    "Verify",
]
