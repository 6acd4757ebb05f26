"""Short videos with a known law of motion: an emoji that swings, spins, grows or bounces over a plain or graded background.

A clip is drawn by a noun, a motion and continuous factors (place, size, tilt, hue, colours), which stay the same in all of
its 16 frames; only what ``law.py`` says moves.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from training.emoji.data import backgrounds, emoji_list, names, place, rotate_hue, sprites, uniform
from training.motion.law import FRAMES, MOTIONS, law

NOUNS = (
    "lion",
    "frog",
    "turtle",
    "penguin",
    "octopus",
    "butterfly",
    "mushroom",
    "strawberry",
    "pineapple",
    "rocket",
    "automobile",
    "carrot",
)
PROMPTS = [f"{noun} {motion}" for noun in NOUNS for motion in MOTIONS]
MARGIN = 20  # pixels of room around a sprite
SIZE = (0.62, 0.70)  # share of the picture's width, with that room
TILT, SHIFT, HUE = 0.12, 0.03, 0.20
START = {"bouncing": 0.16}  # how far below the middle
GRADED = 0.5  # share of clips whose background goes from one colour to another


def judged() -> dict[str, int]:
    """Each prompt's class in the classifier of ``emoji``; any few of them, evenly taken, have nouns and motions of all kinds."""
    known, n, m = names(), len(NOUNS), len(MOTIONS)
    order = [(NOUNS[(i + 2 * turn) % n], MOTIONS[(i + turn) % m]) for turn in range(m) for i in range(n)]
    return {f"{noun} {motion}": known.index(noun) for noun, motion in order}


def sheet() -> torch.Tensor:
    """One sprite for each noun, ``(12, 4, 176, 176)``, its centre of mass in the middle: what it turns about."""
    known = {name: emoji for emoji, name in emoji_list(100)}
    found = F.pad(sprites([known[noun] for noun in NOUNS]), (MARGIN,) * 4)
    at = torch.arange(found.shape[-1]) - (found.shape[-1] - 1) / 2
    for i, alpha in enumerate(found[:, 3]):
        off = ((alpha * at[:, None]).sum() / alpha.sum(), (alpha * at).sum() / alpha.sum())
        found[i] = found[i].roll([-round(float(o)) for o in off], (1, 2))
    return found


def _grounds(n: int, size: int, g: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """Backgrounds ``(n, 3, size, size)``: plain, or an even change of colour in one direction."""
    one, other = backgrounds(n, g, device), backgrounds(n, g, device)
    at = (torch.arange(size, device=device) + 0.5) / size - 0.5
    angle = uniform(n, 0, 2 * math.pi, g, device)[:, None, None]
    along = (angle.cos() * at + angle.sin() * at[:, None]) / math.sqrt(2) + 0.5
    share = along[:, None] * (torch.rand(n, generator=g, device=device) < GRADED)[:, None, None, None]
    return one + share * (other - one)


def draw(
    sprites: torch.Tensor, prompt: torch.Tensor, size: int = 64, g: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips ``(n, 16, 3, size, size)`` in [-1, 1] of prompt ids ``(n,)``, and their poses ``(n, 16, 4)``.

    A pose is the centre's place right and down of the picture's upper left corner in shares of its width, the clockwise turn in
    radians and the size as a share of the width.
    """
    n, device = len(prompt), prompt.device
    start = torch.stack(
        [
            uniform(n, -SHIFT, SHIFT, g, device),
            uniform(n, -SHIFT, SHIFT, g, device),
            uniform(n, -TILT, TILT, g, device),
            uniform(n, *SIZE, g, device),
        ],
        1,
    )
    hue, ground = uniform(n, -HUE, HUE, g, device), _grounds(n, size, g, device)
    poses = start[:, None].repeat(1, FRAMES, 1)
    frame = torch.arange(FRAMES)
    for i, motion in enumerate(MOTIONS):
        chosen = (prompt % len(MOTIONS)) == i
        moved = torch.stack(law(motion, frame), 1).float().to(device)
        poses[chosen, :, :3] += moved[:, :3]
        poses[chosen, :, 3] *= moved[:, 3]
        poses[chosen, :, 1] += START.get(motion, 0.0)
    right, down, turn, share = poses.flatten(0, 1).unbind(1)
    noun = sprites[prompt // len(MOTIONS)].repeat_interleave(FRAMES, 0)
    rgba = place(noun, turn, share, right, down, size)
    rgb = rotate_hue(rgba[:, :3], hue.repeat_interleave(FRAMES))
    picture = rgb + (1 - rgba[:, 3:]) * ground.repeat_interleave(FRAMES, 0)
    poses[..., :2] += 0.5
    return (picture.clamp(0, 1) * 2 - 1).unflatten(0, (n, FRAMES)), poses


@torch.no_grad()
def track(clip: torch.Tensor) -> torch.Tensor:
    """Poses ``(frames, 4)`` of the one thing in a clip ``(frames, 3, h, w)`` in [0, 1], as :func:`draw` gives them.

    The centre is that of the thing's outline, and turn and size are against frame 0 (0 and 1 there): what a law is compared with.
    The background is fitted to the frame's border as an even change of colour; the turn is where the clip's polar picture
    matches that of frame 0 best.
    """
    weight = _apart(clip)
    h, w = weight.shape[1:]
    y, x = ((torch.arange(n, device=clip.device) + 0.5) / n for n in (h, w))
    mass = weight.sum((1, 2)).clamp_min(1e-6)
    down, right = (weight * y[:, None]).sum((1, 2)) / mass, (weight * x).sum((1, 2)) / mass
    size = (mass / mass[0]).sqrt()
    bins, rings = 180, 16
    radius = torch.linspace(0.03, 0.24, rings, device=clip.device)
    angle = torch.arange(bins, device=clip.device) * (2 * math.pi / bins)
    reach = size[:, None, None] * radius[:, None]
    grid = torch.stack(
        [2 * (right[:, None, None] + reach * angle.cos()) - 1, 2 * (down[:, None, None] + reach * angle.sin()) - 1], -1
    )
    seen = F.grid_sample(torch.cat([clip * weight[:, None], weight[:, None]], 1), grid, align_corners=False)
    seen = (seen - seen.mean(3, keepdim=True)) * radius[:, None]
    spectrum = torch.fft.rfft(seen, dim=3)
    match = torch.fft.irfft((spectrum * spectrum[:1].conj()).sum((1, 2)), n=bins, dim=1)
    best = match.argmax(1)
    left, middle, after = (match.gather(1, ((best + d) % bins)[:, None])[:, 0] for d in (-1, 0, 1))
    fine = 0.5 * (left - after) / (left - 2 * middle + after).clamp_max(-1e-9)
    turn = (best + fine) * (2 * math.pi / bins)
    return torch.stack([right, down, torch.remainder(turn + math.pi, 2 * math.pi) - math.pi, size], 1)


def _apart(clip: torch.Tensor) -> torch.Tensor:
    """How surely each pixel is not background, ``(frames, h, w)`` in [0, 1]."""
    _, _, h, w = clip.shape
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, device=clip.device) for n in (h, w)), indexing="ij")
    plane = torch.stack([torch.ones_like(x), x, y], -1)
    edge = torch.zeros(h, w, dtype=torch.bool, device=clip.device)
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = True, True, True, True
    colour = clip[:, :, edge].transpose(1, 2)
    trust = torch.ones(len(clip), int(edge.sum()), 1, device=clip.device)
    for _ in range(4):  # what touches the border is no background
        a = plane[edge] * trust
        fitted = torch.linalg.solve(
            a.transpose(1, 2) @ plane[edge] + 1e-6 * torch.eye(3, device=clip.device), a.transpose(1, 2) @ colour
        )
        off = (colour - plane[edge] @ fitted).abs().amax(2, keepdim=True)
        trust = (off < 0.06).float() + 1e-3
    ground = (plane.view(1, -1, 3) @ fitted).transpose(1, 2).view(clip.shape)
    off = (clip - ground).abs().amax(1)
    return ((off - 0.08) / 0.08).clamp(0, 1)


def against_law(poses: torch.Tensor, motion: str) -> dict[str, torch.Tensor]:
    """Errors of tracked poses ``(frames, 4)`` against the law, one for each frame after the first.

    ``centre`` in shares of the picture's width, ``turn`` in radians, ``size`` as a ratio less one; all without sign.
    """
    frames = len(poses)
    told = law(motion, torch.arange(frames))
    centre = torch.stack([poses[:, 0] - poses[0, 0] - told.right, poses[:, 1] - poses[0, 1] - told.down], 1).norm(dim=1)
    turn = torch.remainder(poses[:, 2] - told.turn + math.pi, 2 * math.pi) - math.pi
    return {"centre": centre[1:], "turn": turn.abs()[1:], "size": (poses[:, 3] / told.size - 1).abs()[1:]}
