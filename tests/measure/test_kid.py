import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure import kid


def features(n: int, d: int = 5, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def mmd(a: torch.Tensor, b: torch.Tensor) -> float:
    """The unbiased estimator of Binkowski et al., 2018, equation 4, pair by pair."""

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    n = len(a)
    same = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i in range(n) for j in range(n) if i != j)
    return same / (n * (n - 1)) - 2 * sum(kernel(x, y) for x in a for y in b) / n**2


def test_is_the_formula_when_the_subset_is_everything():
    a, b = features(12, seed=0), features(12, mean=0.7, seed=1)
    mean, std = kid(a, b, subsets=3, subset_size=12)
    assert mean == pytest.approx(mmd(a.double(), b.double()), rel=1e-6)
    assert std == pytest.approx(0, abs=1e-9)


def test_near_zero_for_one_distribution_and_grows_with_distance():
    a = features(400, seed=0)
    same, near, far = (kid(a, features(400, mean=m, seed=1), 50, 200)[0] for m in (0.0, 0.3, 1.0))
    assert abs(same) < 0.05 < near < far


def test_the_generator_decides_the_subsets():
    a, b = features(50, seed=0), features(60, seed=1)
    one, two, other = (kid(a, b, 5, 20, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one == two != other
    assert kid(a, b, 5, 20) == kid(a, b, 5, 20)


def test_leaves_the_global_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    kid(features(20), features(20), 2, 10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("subsets", "size", "says"), [(1, 21, "number of pictures, 20"), (1, 1, "from 2"), (0, 5, "at least 1")])
def test_refuses_impossible_subsets(subsets: int, size: int, says: str):
    with pytest.raises(OmniCacheError, match=says):
        kid(features(20), features(30), subsets, size)


def test_refuses_features_of_different_widths():
    with pytest.raises(OmniCacheError, match=r"\(n, d\)"):
        kid(features(20, 4), features(20, 5), 1, 5)
