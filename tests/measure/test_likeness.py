"""How like what was drawn is to what is drawn without a cache."""

import pytest
import torch

from omnicache.measure import psnr
from omnicache.measure.likeness import EQUAL, likeness, shown

pytest.importorskip("torchmetrics")


def test_clips_are_compared_frame_by_frame():
    base = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = (base + 0.1 * torch.arange(1, 5).view(1, 4, 1, 1, 1)).clamp(0, 1)
    each = torch.stack([psnr(made[:, i], base[:, i]) for i in range(4)])
    torch.testing.assert_close(likeness(made, base), each.mean(0))
    torch.testing.assert_close(likeness(made[:, 0], base[:, 0]), each[0])


def test_what_is_the_same_makes_no_mean_infinite():
    base = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = base.clone()
    made[0] = 1 - made[0]
    assert likeness(made, base).tolist() == [pytest.approx(float(psnr(made[:1], base[:1]))), EQUAL, EQUAL]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_what_holds_no_numbers_is_as_unlike_as_can_be_and_shown_black(broken):
    base = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = base.clone()
    made[0, 0, 0, 0] = broken
    assert likeness(made, base).tolist() == [0.0, EQUAL]
    assert shown(made)[0, 0, 0, 0] == 0 and torch.equal(shown(made)[1], base[1])
    assert shown(base) is base
