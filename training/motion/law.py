"""The laws of motion that the videos of ``emoji-motion`` and ``emoji-animate`` obey: where a sprite is, frame by frame.

Each law says how a sprite's pose differs from its pose in frame 0, so that a video is judged against its own first frame.
All have a period of 16 frames: a video of 16 can be played in a loop.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

FRAMES = 16
MOTIONS = ("moving", "spinning", "growing", "bouncing")
SWING, GROWTH, JUMP = 0.18, 0.6, 0.28


class Pose(NamedTuple):
    """Against frame 0: the centre's shift right and down in shares of the picture's width, the clockwise turn in radians and
    the factor of size."""

    right: torch.Tensor
    down: torch.Tensor
    turn: torch.Tensor
    size: torch.Tensor


def law(motion: str, frame: torch.Tensor | float) -> Pose:
    """Pose at ``frame``, which may be a fraction, a negative number or a tensor of any shape.

    - moving: swings sideways, right first, by 0.18 each way.
    - spinning: turns clockwise at an even speed, once in 16 frames.
    - growing: grows to 1.6 times its size in 8 frames and shrinks back, as a cosine.
    - bouncing: jumps 0.28 high twice, each time a parabola of 8 frames.
    """
    at = torch.as_tensor(frame, dtype=torch.float64)
    angle, zero, one = at * (2 * math.pi / FRAMES), torch.zeros_like(at), torch.ones_like(at)
    if motion == "moving":
        return Pose(SWING * angle.sin(), zero, zero, one)
    if motion == "spinning":
        return Pose(zero, zero, angle, one)
    if motion == "growing":
        return Pose(zero, zero, zero, 1 + GROWTH * (1 - angle.cos()) / 2)
    if motion == "bouncing":
        flown = (at / 8) % 1
        return Pose(zero, -4 * JUMP * flown * (1 - flown), zero, one)
    raise ValueError(f"no motion {motion!r}; there are {', '.join(MOTIONS)}")
