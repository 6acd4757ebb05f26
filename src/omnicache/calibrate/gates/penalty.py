from __future__ import annotations

import math

import torch

SPEED = 20.0
"""How far the price can go in a whole fit, on a log scale, for each share of the modules that is computed too much or too little.
Much faster than the gates can follow, it would run away from them."""


class Penalty:
    """The price of a computed module, against which a gate weighs the error that computing it saves.

    The papers give it as a number, which holds for one model and one number of steps. Without one it is moved from round to
    round until the gates compute the share that is wanted.

    Attributes:
        price: what it is now.
    """

    def __init__(self, given: float | None, computed: float):
        self.price, self._given, self._computed = given or 0.0, given is not None, computed

    def begin(self, worth: torch.Tensor) -> None:
        """The first price, from the error that each module saves at each step when it is computed a little more, any shape."""
        if not self._given:
            found = worth.flatten().double().cpu()
            self.price = float(found.quantile(1 - self._computed).clamp_min(1e-3 * found.abs().max()).clamp_min(1e-30))

    def follow(self, computed: float, rounds: int) -> None:
        """After one of ``rounds`` rounds, in which a share ``computed`` of the modules was computed."""
        if not self._given:
            self.price *= math.exp(SPEED / rounds * (computed - self._computed))


__all__ = ["Penalty"]
