import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure import ssim


def written_out(a: torch.Tensor, b: torch.Tensor) -> float:
    """Wang et al., 2004, equation 13, window by window, for one picture reflected at its borders."""
    at = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    weight = torch.outer(line, line) / line.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    found = []
    a, b = (torch.nn.functional.pad(p.double(), (5,) * 4, mode="reflect") for p in (a, b))
    for x, y in zip(a, b, strict=True):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (weight * p).sum(), (weight * q).sum()
                vp, vq = (weight * p * p).sum() - mp**2, (weight * q * q).sum() - mq**2
                cov = (weight * p * q).sum() - mp * mq
                found.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(torch.stack(found).mean())


def test_is_the_formula_for_each_picture():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 16, 18, generator=g)
    b = (a + 0.2 * torch.randn(a.shape, generator=g)).clamp(0, 1)
    assert ssim(a, b).tolist() == pytest.approx([written_out(x, y) for x, y in zip(a, b, strict=True)], abs=1e-4)


def test_one_for_equal_pictures_of_the_zoo_size():
    a = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert ssim(a, a).tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_one_picture_keeps_its_axis():
    a = torch.rand(1, 3, 64, 64)
    assert ssim(a, a).shape == (1,)


def test_falls_with_noise():
    g = torch.Generator().manual_seed(0)
    a, noise = torch.rand(1, 3, 64, 64, generator=g), torch.randn(1, 3, 64, 64, generator=g)
    some, more = (float(ssim(a, (a + level * noise).clamp(0, 1))) for level in (0.05, 0.2))
    assert 1 > some > more > 0


def test_refuses_pictures_smaller_than_the_window():
    with pytest.raises(OmniCacheError, match="at least 11x11"):
        ssim(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
