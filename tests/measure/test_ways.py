"""Reading a curve off between measured points."""

import pytest

from omnicache.measure.ways import ways


def test_a_place_is_reached_from_beyond_and_on_the_line_between_neighbours():
    assert ways([3.0, 1.0, 2.0], 2.5) == [{0: 1.0}, {2: 0.5, 0: 0.5}]
    assert ways([3.0, 1.0, 2.0], 1.25) == [{2: 1.0}, {0: 1.0}, {1: 0.75, 2: 0.25}]
    assert ways([1.0, 2.0], 2.0) == [{1: 1.0}]
    assert ways([1.0, 2.0], 0.5) == [{0: 1.0}, {1: 1.0}]


@pytest.mark.parametrize("places", [[], [1.0, 2.0]])
def test_beyond_the_last_point_there_is_no_way(places):
    assert ways(places, 2.1) == []
