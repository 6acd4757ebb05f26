import math

import pytest
import torch
from PIL import Image

from omnicache.errors import OmniCacheError
from omnicache.measure import psnr


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_is_the_formula_for_each_picture():
    a, b = pictures(4, 0), pictures(4, 1)
    expected = [-10 * math.log10(float(((x - y) ** 2).mean())) for x, y in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, abs=1e-4)


def test_known_error_gives_known_decibels():
    a = torch.full((2, 3, 64, 64), 0.5)
    b = a.clone()
    b[0] += 0.1
    b[1] += 0.01
    assert psnr(a, b).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)


def test_equal_pictures_are_infinitely_close():
    a = pictures(2)
    assert psnr(a, a).tolist() == [math.inf, math.inf]


def test_half_precision_is_computed_in_float():
    a, b = pictures(2, 0), pictures(2, 1)
    assert psnr(a.half(), b.half()).dtype == torch.float32


@pytest.mark.parametrize("b", [torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 8)])
def test_refuses_other_shapes(b: torch.Tensor):
    with pytest.raises(OmniCacheError, match="differ in shape"):
        psnr(pictures(2), b)


def test_refuses_a_single_picture():
    with pytest.raises(OmniCacheError, match="n, 3, h, w"):
        psnr(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))


def test_pillow_images_are_taken_too():
    a, b = Image.new("RGB", (16, 12), (128, 128, 128)), Image.new("RGB", (16, 12), (128, 128, 179))
    expected = -10 * math.log10((51 / 255) ** 2 / 3)
    assert psnr(a, b).tolist() == pytest.approx([expected])
    assert psnr([a, a], [a, b]).tolist() == pytest.approx([math.inf, expected])
    left = Image.new("RGB", (2, 1))
    left.putpixel((0, 0), (255, 0, 0))
    tensor = torch.zeros(1, 3, 1, 2)
    tensor[0, 0, 0, 0] = 1
    assert psnr(left, tensor).tolist() == [math.inf]


@pytest.mark.parametrize(
    ("a", "said"),
    [
        (torch.zeros(1, 3, 4, 4).numpy(), r"not ndarray; draw with pipe\(..., output_type=\"pt\"\)"),
        ([], "not list"),
        ("a.png", "not str"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))], r"differ in size: \(4, 4\), \(4, 5\)"),
    ],
)
def test_what_is_no_picture_is_refused(a, said):
    with pytest.raises(OmniCacheError, match=said):
        psnr(a, pictures(1))
