"""Where to cache."""

from omnicache.granularity.algebra import Difference, Else, Intersection, Union
from omnicache.granularity.attention import Attention, CrossAttention
from omnicache.granularity.axis import Inner, Temporal, Text, Within
from omnicache.granularity.block import Block, Blocks
from omnicache.granularity.called import Called
from omnicache.granularity.deep import Deep
from omnicache.granularity.denoiser import Denoiser
from omnicache.granularity.encoder import Encoder
from omnicache.granularity.final import Final
from omnicache.granularity.guidance import Guidance
from omnicache.granularity.layers import Layers
from omnicache.granularity.mlp import MLP
from omnicache.granularity.nth import Nth
from omnicache.granularity.span import Span
from omnicache.granularity.stack import Stack
from omnicache.granularity.transformers import Transformers

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "Blocks",
    "Called",
    "CrossAttention",
    "Deep",
    "Denoiser",
    "Difference",
    "Else",
    "Encoder",
    "Final",
    "Guidance",
    "Inner",
    "Intersection",
    "Layers",
    "Nth",
    "Span",
    "Stack",
    "Temporal",
    "Text",
    "Transformers",
    "Union",
    "Within",
]
