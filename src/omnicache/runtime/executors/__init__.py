"""What a hooked module does at one call: compute and let the predictor learn, or put in an estimate.

There are three layouts of a site and one executor each, and two more for columns of a site. All state lives in the cells that the
pass hands out.
"""

from omnicache.runtime.executors.base import Cell, Proceed, Role
from omnicache.runtime.executors.chain import Chain, ChainState
from omnicache.runtime.executors.columns import ByColumns
from omnicache.runtime.executors.keys import KeyWise
from omnicache.runtime.executors.neurons import NeuronWise
from omnicache.runtime.executors.onlookers import After, Around, Check, Probe, Watch
from omnicache.runtime.executors.region import Region, RegionState
from omnicache.runtime.executors.whole import Whole

__all__ = [
    "After",
    "Around",
    "ByColumns",
    "Cell",
    "Chain",
    "ChainState",
    "Check",
    "KeyWise",
    "NeuronWise",
    "Probe",
    "Proceed",
    "Region",
    "RegionState",
    "Role",
    "Watch",
    "Whole",
]
