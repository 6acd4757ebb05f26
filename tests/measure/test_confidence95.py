import math

import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure import confidence95


def test_agrees_with_the_normal_interval_for_many_values():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 3 + 5
    low, high = confidence95(values)
    half = 1.96 * float(values.std()) / math.sqrt(2000)
    assert low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)


def test_covers_the_true_mean_about_95_times_in_100():
    g = torch.Generator().manual_seed(1)
    inside = 0
    for _ in range(100):
        low, high = confidence95(torch.rand(60, generator=g))
        inside += low <= 0.5 <= high
    assert 88 <= inside <= 100


def test_takes_verdicts_and_repeats_itself():
    values = torch.arange(50) % 5 > 0
    low, high = confidence95(values)
    assert low < 0.8 < high
    assert (low, high) == confidence95(values)


def test_one_value_is_a_point():
    assert confidence95(torch.tensor([3.0])) == (3.0, 3.0)


def test_many_values_are_resampled_in_parts():
    values = torch.rand(50_000, generator=torch.Generator().manual_seed(0))[:4001]
    low, high = confidence95(values)
    assert low < float(values.mean()) < high


@pytest.mark.parametrize("values", [torch.zeros(0), torch.zeros(2, 2)])
def test_refuses_what_is_not_a_list_of_values(values: torch.Tensor):
    with pytest.raises(OmniCacheError, match=r"shape \(n,\)"):
        confidence95(values)


def test_leaves_the_global_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    confidence95(torch.rand(10, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.get_rng_state())
