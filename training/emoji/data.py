"""Emoji pictures with a continuous distribution: sprites from Noto Color Emoji, augmented on the fly.

A class is one emoji. Every picture draws its own place, size, rotation, hue and background colour, so that a model has a
smooth conditional density to learn and cannot store a finite list of points.

Needs Debian's ``fonts-noto-color-emoji`` (the font, OFL) and ``unicode-data`` (emoji-test.txt, the names).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
SUBSET = Path(__file__).with_name("subset.txt")
GLYPH = 109  # the only bitmap size in the font
CANVAS = 136  # its bitmaps are 136 x 128


@dataclass(frozen=True)
class Augment:
    """Ranges of the continuous factors. ``classifier()`` is wider, so that it judges samples it was not fitted to."""

    rotation: float = 0.26  # radians, +-15 degrees
    size: tuple[float, float] = (0.68, 0.92)  # share of the picture's width
    shift: float = 0.07  # share of the picture's width, in each direction
    hue: float = 0.30  # radians in the YIQ plane
    noise: float = 0.0

    @staticmethod
    def classifier() -> Augment:
        return Augment(rotation=0.5, size=(0.55, 1.0), shift=0.12, hue=0.5, noise=0.08)


def emoji_list(classes: int) -> list[tuple[str, str]]:
    """``(emoji, name)`` for each class id: the hand-picked subset for 100, Unicode order without skin tones and flags else."""
    known: dict[str, str] = {}
    for line in NAMES.read_text().splitlines():
        found = re.match(r"^[0-9A-F ]+; fully-qualified\s+# (\S+) E\S+ (.+)$", line)
        if found:
            known[found[1]] = found[2]
    if classes == 100:
        picked = [e for line in SUBSET.read_text().splitlines() if not line.startswith("#") for e in line.split()]
        return [(e, known[e]) for e in picked]
    plain = [(e, n) for e, n in known.items() if "skin tone" not in n and not n.startswith("flag") and len(e) <= 2]
    if len(plain) < classes:
        raise SystemExit(f"the font list holds {len(plain)} emoji, {classes} were asked for")
    return plain[:classes]


def names(classes: int = 100) -> list[str]:
    """The CLDR name of each class."""
    return [name for _, name in emoji_list(classes)]


def sheet(classes: int) -> torch.Tensor:
    """The sprite of each class."""
    return sprites([emoji for emoji, _ in emoji_list(classes)])


def sprites(emoji: list[str]) -> torch.Tensor:
    """Premultiplied RGBA sprites, ``(classes, 4, 136, 136)`` in [0, 1]."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(FONT), GLYPH)
    out = torch.zeros(len(emoji), 4, CANVAS, CANVAS)
    for i, char in enumerate(emoji):
        picture = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        box = ImageDraw.Draw(picture).textbbox((0, 0), char, font=font)
        at = ((CANVAS - box[2] - box[0]) / 2, (CANVAS - box[3] - box[1]) / 2)
        ImageDraw.Draw(picture).text(at, char, font=font, embedded_color=True)
        raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(CANVAS, CANVAS, 4)
        rgba = raw.permute(2, 0, 1).float() / 255
        out[i] = torch.cat([rgba[:3] * rgba[3:], rgba[3:]])
    empty = [emoji[i] for i in range(len(emoji)) if out[i, 3].max() == 0]
    if empty:
        raise SystemExit(f"the font draws nothing for {empty}")
    return out


def uniform(n: int, low: float, high: float, g: torch.Generator | None, device: torch.device) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, generator=g, device=device)


def backgrounds(n: int, g: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """Plain colours, pale to medium: hue anywhere, saturation 0.05-0.55, value 0.75-1. ``(n, 3, 1, 1)``."""
    h = uniform(n, 0, 6, g, device)
    s = uniform(n, 0.05, 0.55, g, device)
    v = uniform(n, 0.75, 1.0, g, device)
    shift = torch.tensor([5.0, 3.0, 1.0], device=device)
    k = (shift + h[:, None]) % 6
    rgb = v[:, None] * (1 - s[:, None] * torch.clamp(torch.minimum(k, 4 - k), 0, 1))
    return rgb[:, :, None, None]


def rotate_hue(rgb: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=rgb.device)
    turn = torch.eye(3, device=rgb.device).repeat(len(angle), 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return torch.einsum("bij,bjhw->bihw", matrix, rgb)


def place(
    sprite: torch.Tensor, turn: torch.Tensor, share: torch.Tensor, right: torch.Tensor, down: torch.Tensor, size: int = 64
) -> torch.Tensor:
    """Sprites ``(n, 4, 136, 136)`` on nothing, ``(n, 4, size, size)``: turned clockwise by radians, as wide as a share of the
    picture, and shifted from its centre by shares of its width. Each argument is ``(n,)``."""
    n, scale = len(sprite), 1 / share
    theta = torch.zeros(n, 2, 3, device=sprite.device)
    theta[:, 0, 0] = theta[:, 1, 1] = turn.cos() * scale
    theta[:, 0, 1], theta[:, 1, 0] = turn.sin() * scale, -turn.sin() * scale
    theta[:, :, 2] = -torch.einsum("bij,bj->bi", theta[:, :, :2], torch.stack([2 * right, 2 * down], 1))
    grid = F.affine_grid(theta, [n, 4, 2 * size, 2 * size], align_corners=False)
    return F.avg_pool2d(F.grid_sample(sprite, grid, align_corners=False), 2)  # two samples a pixel and axis: no aliasing


def draw(sprite: torch.Tensor, how: Augment, size: int = 64, g: torch.Generator | None = None) -> torch.Tensor:
    """Pictures ``(n, 3, size, size)`` in [-1, 1] of sprites ``(n, 4, 136, 136)``, one draw of all factors each."""
    n, device = len(sprite), sprite.device
    angle = uniform(n, -how.rotation, how.rotation, g, device)
    share = uniform(n, *how.size, g, device)
    right, down = (uniform(n, -how.shift, how.shift, g, device) for _ in range(2))
    rgba = place(sprite, -angle, share, right, down, size)
    rgb = rotate_hue(rgba[:, :3], uniform(n, -how.hue, how.hue, g, device))
    picture = rgb + (1 - rgba[:, 3:]) * backgrounds(n, g, device)
    if how.noise:
        level = uniform(n, 0, how.noise, g, device)[:, None, None, None]
        picture = picture + level * torch.randn(picture.shape, generator=g, device=device)
    return (picture.clamp(0, 1) * 2 - 1).contiguous()
