import pytest
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure import accuracy


def by_red(pictures: torch.Tensor) -> torch.Tensor:
    """Class 1 where the picture is redder than a half."""
    red = pictures[:, 0].mean((1, 2))
    return torch.stack([1 - red, red], 1)


def test_says_it_for_each_picture():
    pictures = torch.zeros(4, 3, 8, 8)
    pictures[2:, 0] = 1
    found = accuracy(by_red, pictures, torch.tensor([0, 1, 0, 1]))
    assert found.dtype == torch.bool
    assert found.tolist() == [True, False, False, True]


def test_batches_give_the_same_as_one_call():
    pictures = torch.rand(600, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(600) % 2
    assert torch.equal(accuracy(by_red, pictures, labels), by_red(pictures).argmax(1) == labels)


def test_no_pictures_no_verdicts():
    assert accuracy(by_red, torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_refuses_too_few_labels():
    with pytest.raises(OmniCacheError, match="4 pictures need as many labels"):
        accuracy(by_red, torch.zeros(4, 3, 8, 8), torch.tensor([0]))
