"""How like what was drawn is to what is drawn without a cache."""

import pytest
import torch

from omnicache.measure import psnr
from omnicache.measure.comparison import likeness

pytest.importorskip("torchmetrics")


def test_clips_are_compared_frame_by_frame():
    base = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = (base + 0.1 * torch.arange(1, 5).view(1, 4, 1, 1, 1)).clamp(0, 1)
    each = [float(psnr(made[:, i], base[:, i]).mean()) for i in range(4)]
    assert likeness(made, base) == pytest.approx(sum(each) / 4, abs=1e-4)
    assert likeness(made[:, 0], base[:, 0]) == pytest.approx(each[0], abs=1e-4)


def test_what_is_the_same_makes_no_mean_infinite():
    base = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = base.clone()
    assert likeness(made, base) is None
    made[0] = 1 - made[0]
    assert likeness(made, base) == pytest.approx(float(psnr(made[:1], base[:1])))
