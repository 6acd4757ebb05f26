import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure import nearest


def test_is_the_smallest_of_all_distances():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 7, generator=g), torch.randn(90, 7, generator=g)
    expected = [min(float(((x - y) ** 2).sum()) ** 0.5 for y in b) for x in a]
    assert nearest(a, b).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_copy_is_at_zero_however_large_the_values():
    b = 1000 + torch.rand(200, 3000, generator=torch.Generator().manual_seed(0))
    assert nearest(b[40:80], b).tolist() == [0.0] * 40


def test_refuses_an_empty_reference():
    with pytest.raises(OmniCacheError, match=r"\(n, d\)"):
        nearest(torch.zeros(3, 2), torch.zeros(0, 2))
