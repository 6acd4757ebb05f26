"""The shape of a sampling path: tests 1 and 2 of OmniCache-Trajectory's reference."""

import math

import pytest
import torch

from omnicache.calibrate.geometry import gram, menger, project, second_difference, similarity, turning


def plane(dimensions: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dimensions, 2, generator=draw, dtype=torch.float64)).Q.T


def circle(radius: float, dimensions: int = 50) -> torch.Tensor:
    angles = torch.tensor([0, 0.3, 0.7, 1.2, 1.8], dtype=torch.float64)
    return radius * torch.stack([angles.cos(), angles.sin()], 1) @ plane(dimensions) + 3.0


# --- 1: curvature


def test_1_a_circle_has_the_curvature_one_over_its_radius_at_any_spacing():
    points = circle(2.0)
    for path in (points, project(gram(points))):
        torch.testing.assert_close(menger(path), torch.full((3,), 0.5, dtype=torch.float64), rtol=0, atol=1e-10)


def test_1_collinear_points_have_none():
    line = torch.tensor([0, 1, 1.5, 4, 4.1], dtype=torch.float64)[:, None] * plane(20)[:1]
    assert menger(line).abs().max() < 1e-6
    assert menger(project(gram(line))).abs().max() < 1e-6
    assert turning(line).abs().max() < 1e-6


@pytest.mark.parametrize("factor", [0.1, 3.0, 1e4])
def test_1_scaling_a_path_divides_its_curvature(factor):
    torch.testing.assert_close(menger(project(gram(circle(2.0) * factor))), menger(circle(2.0)) / factor, rtol=1e-10, atol=0)


def test_1_flipping_or_swapping_the_principal_directions_changes_nothing():
    draw = torch.Generator().manual_seed(1)
    path = project(gram(torch.randn(12, 40, generator=draw, dtype=torch.float64).cumsum(0)))
    for change in ([1, -1, 1], [1, 1, -1], [1, -1, -1]):
        flipped = path * torch.tensor(change, dtype=torch.float64)
        torch.testing.assert_close(menger(flipped), menger(path), rtol=1e-12, atol=0)
    torch.testing.assert_close(menger(path[:, [0, 2, 1]]), menger(path), rtol=1e-12, atol=0)


def test_the_other_curvatures():
    corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 3, 0]], dtype=torch.float64)
    assert turning(corner).tolist() == pytest.approx([math.pi / 2, 0.0], abs=1e-7)
    assert second_difference(corner).tolist() == pytest.approx([math.sqrt(2), 1.0])


# --- 2: projection


def wandering(steps: int = 10, dimensions: int = 300, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(steps, dimensions, generator=draw, dtype=torch.float64).cumsum(0)


def test_2_the_ends_lie_on_the_first_axis():
    x = wandering()
    path = project(gram(x))
    assert path[0].tolist() == pytest.approx([float((x[0] - x[-1]).norm()), 0, 0], abs=1e-6)
    assert path[-1].tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_2_inner_products_alone_give_what_singular_vectors_of_the_latents_give():
    x = wandering()
    y = x - x[-1]
    u = y[0] / y[0].norm()
    along = y @ u
    rest = y - along[:, None] * u
    directions = torch.linalg.svd(rest, full_matrices=False).Vh[:2]
    path, by_hand = project(gram(x)), torch.cat([along[:, None], rest @ directions.T], 1)
    torch.testing.assert_close(path[:, 0], by_hand[:, 0])
    torch.testing.assert_close(path[:, 1:].abs(), by_hand[:, 1:].abs(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(menger(path), menger(by_hand), rtol=1e-9, atol=0)


def test_2_the_centre_is_the_end_point():
    """Shifting all latents changes nothing; without centring the shift would take up a principal direction."""
    x = wandering()
    torch.testing.assert_close(project(gram(x + 100.0)).abs(), project(gram(x)).abs(), rtol=1e-6, atol=1e-6)


def flow(eigenvalues: torch.Tensor, steps: int = 30) -> torch.Tensor:
    """The exact path of a flow to Gaussian data: ``e * sqrt((1 - t)^2 lambda + t^2)``, from noise (t = 1) to data."""
    draw = torch.Generator().manual_seed(3)
    e = torch.randn(len(eigenvalues), generator=draw, dtype=torch.float64)
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:, None]
    return e * ((1 - t) ** 2 * eigenvalues + t**2).sqrt()


def test_2_with_two_eigenvalues_the_path_is_planar_and_nothing_is_lost():
    x = flow(torch.tensor([0.1, 2.5], dtype=torch.float64).repeat(100))
    path = project(gram(x))
    torch.testing.assert_close(menger(path), menger(x), rtol=2e-9, atol=0)  # the area of thin triangles costs digits
    assert float(path[:, 2].abs().max()) < 1e-6 * float(path[:, 1].abs().max())
    assert torch.linalg.svdvals(x - x[-1])[2] < 1e-12


@pytest.mark.parametrize(("decades", "loss"), [(1, 2e-3), (2, 1e-2)])
def test_2_with_64_eigenvalues_three_dimensions_lose_little(decades, loss):
    x = flow(torch.logspace(-decades, 0, 64, dtype=torch.float64).repeat(16))
    ratio = menger(project(gram(x))) / menger(x)
    assert 1e-9 < float((ratio - 1).abs().max()) < loss


def test_paths_of_one_shape_are_alike_whatever_their_length_and_orientation():
    a = project(gram(wandering()))
    assert similarity(a, a) == pytest.approx(1.0)
    assert similarity(a, 3.0 * a * torch.tensor([1.0, -1.0, 1.0])) == pytest.approx(1.0)
    assert similarity(a, project(gram(wandering(seed=5)))) < 0.95


def test_latents_of_any_shape_and_dtype():
    x = wandering(steps=5, dimensions=4 * 8 * 8)
    pictures = [row.view(1, 4, 8, 8).float() for row in x]
    torch.testing.assert_close(gram(pictures), gram(x), rtol=1e-5, atol=1e-4)
