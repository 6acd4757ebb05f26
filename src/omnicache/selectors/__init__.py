"""What of a site to compute even on a reuse step."""

from omnicache.selectors.frames import Frames
from omnicache.selectors.frames_and_tokens import FramesAndTokens
from omnicache.selectors.keys import Keys
from omnicache.selectors.linear_gate import LinearGate
from omnicache.selectors.motion import Motion
from omnicache.selectors.neurons import Neurons
from omnicache.selectors.positions import Positions
from omnicache.selectors.scores import TokenScores
from omnicache.selectors.tokens import Tokens

__all__ = [
    "Frames",
    "FramesAndTokens",
    "Keys",
    "LinearGate",
    "Motion",
    "Neurons",
    "Positions",
    "TokenScores",
    "Tokens",
]
