"""How a setting's figures are read."""

from __future__ import annotations

from itertools import chain, repeat

import pytest
import torch

from omnicache.measure.peers.gauge import Gauge
from omnicache.measure.peers.size import Size
from omnicache.measure.peers.worker import Drawn

SIZE = Size(samples=4, tuning=4, batch=2, first_pairs=3, final_pairs=3)


class Made:
    """Draws the same pictures always, in the seconds that it is given."""

    def __init__(self, seconds, pictures=0.5):
        self.seconds, self.pictures = iter(seconds), pictures

    def draw(self, which, start, stop):
        took = next(self.seconds)
        return Drawn(took, took, torch.full((stop - start, 3, 8, 8), self.pictures))


@pytest.mark.parametrize(
    ("seconds", "pictures", "nothing", "pairs"),
    [
        (repeat(1.0), 0.5, True, 3),
        (chain([0.9] * 4, repeat(1.0)), 0.5, True, 6),  # one to warm up, and three lucky ones
        (repeat(0.9), 0.5, False, 6),  # exact, and faster
        (repeat(1.0), 0.4, False, 3),
    ],
)
def test_what_changes_no_picture_must_be_faster_in_many_pairs(tmp_path, seconds, pictures, nothing, pairs):
    plain = Made(repeat(1.0))
    found = Gauge(lambda: plain, SIZE, tmp_path).first(Made(seconds, pictures), lambda *_: "")
    assert found["nothing"] is nothing and len(found["pairs"]) == pairs
