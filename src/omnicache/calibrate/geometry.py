"""The shape of a sampling path: its projection to three dimensions and its discrete curvature, from inner products alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def gram(latents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Inner products of the latents ``x_0 ... x_T``: ``(T + 1, T + 1)`` in float64."""
    flat = torch.stack([x.flatten() for x in latents])
    return (flat.double() @ flat.double().T).cpu()


def project(products: torch.Tensor) -> torch.Tensor:
    """The path in its own three dimensions (OmniCache-Trajectory, eq. 4 and 5): ``(T + 1, 3)``.

    The first axis runs from the end point (the origin) to the start point; the other two are the principal directions of what
    is orthogonal to it, per path. Needs only the Gram matrix of the latents, never directions in latent space.
    """
    g = products.double()
    centred = g - g[:, -1:] - g[-1:, :] + g[-1, -1]
    length = centred[0, 0].clamp_min(1e-30).sqrt()
    along = centred[:, 0] / length
    rest = centred - along[:, None] * along[None, :]
    values, vectors = torch.linalg.eigh(rest)
    top = vectors[:, -2:].flip(1) * values[-2:].flip(0).clamp_min(0).sqrt()
    return torch.cat([along[:, None], top], 1)


def menger(points: torch.Tensor) -> torch.Tensor:
    """Menger curvature at the interior points of a path ``(T + 1, d)``: ``(T - 1,)``, for ``i = 1 ... T - 1``.

    The reciprocal of the radius of the circle through three neighbours; exact on circles at any spacing.
    """
    a, b = points[1:-1] - points[:-2], points[2:] - points[1:-1]
    c = a + b
    aa, bb, cc, ab = a.square().sum(1), b.square().sum(1), c.square().sum(1), (a * b).sum(1)
    area = (aa * bb - ab.square()).clamp_min(0).sqrt()
    return 2 * area / (aa * bb * cc).sqrt().clamp_min(1e-30)


def turning(points: torch.Tensor) -> torch.Tensor:
    """Angle between neighbouring segments at the interior points, in radians: ``(T - 1,)``."""
    a, b = points[1:-1] - points[:-2], points[2:] - points[1:-1]
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-30)
    return cosine.clamp(-1, 1).arccos()


def second_difference(points: torch.Tensor) -> torch.Tensor:
    """``||x_{i+1} - 2 x_i + x_{i-1}||`` at the interior points, which eq. 8 contains literally: ``(T - 1,)``."""
    return (points[2:] - 2 * points[1:-1] + points[:-2]).norm(dim=1)


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    """How alike two paths ``(T + 1, 3)`` are, in [0, 1]: 1 less the relative distance after scaling to unit length and
    choosing the signs of the second and third axis. The paper's premise is that this is near 1 for all inputs."""
    unit_a, unit_b = a / a[0, 0].abs().clamp_min(1e-30), b / b[0, 0].abs().clamp_min(1e-30)
    best = min(float((unit_a - unit_b * torch.tensor([1.0, p, q], dtype=b.dtype)).norm()) for p in (1.0, -1.0) for q in (1.0, -1.0))
    return max(0.0, 1 - best / float(unit_a.norm().clamp_min(1e-30)))
