"""What the cards of both video models measure: whether clips obey their law, show the right thing, and look like drawn ones."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from omnicache.measure import accuracy, kid
from omnicache.zoo.classifier import Classifier
from training.cards import deviating, effort, facts, mean, percent, table, told
from training.common import save_grid, tiled
from training.motion.data import NOUNS, PROMPTS, against_law, draw, judged, sheet, track
from training.motion.law import MOTIONS

FRESH_SEED, JUDGED_SEED = 7, 8
SHOWN = [len(MOTIONS) * i + i % len(MOTIONS) for i in range(len(NOUNS))]
"""One prompt of each noun, the motions in turn."""
CLOSE = 0.62  # side of the close-up that the classifier sees, as a share of the picture
NEAR = {"centre": 0.04, "turn": 0.25, "size": 0.12}
"""A clip obeys its law if the mean errors of its tracked frames are at most these: shares of the width, radians, a ratio."""


def close_up(frame: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Frames ``(n, 3, h, w)`` around tracked centres, as large as the classifier knows them."""
    theta = torch.zeros(len(frame), 2, 3, device=frame.device)
    theta[:, 0, 0] = theta[:, 1, 1] = CLOSE
    theta[:, :, 2] = 2 * pose[:, :2] - 1
    grid = F.affine_grid(theta, list(frame.shape), align_corners=False)
    return F.grid_sample(frame, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def figures(judge: Classifier, clips: torch.Tensor, prompt: torch.Tensor, drawn: torch.Tensor) -> dict:
    """Of clips ``(n, 16, 3, 64, 64)`` in [0, 1]: errors against the law by motion, the share that obeys it, accuracy of the first
    frames, and the kernel distance of all frames to those of ``drawn`` clips."""
    poses = [track(clip) for clip in clips]
    motion = [MOTIONS[int(i) % len(MOTIONS)] for i in prompt]
    errors = [against_law(pose, m) for pose, m in zip(poses, motion, strict=True)]
    average = torch.tensor([[float(e[part].mean()) for part in NEAR] for e in errors])
    obeys = (average <= torch.tensor(list(NEAR.values()))).all(1).float()
    right = judged()
    label = torch.tensor([right[PROMPTS[int(i)]] for i in prompt], device=clips.device)
    firsts = close_up(clips[:, 0], torch.stack([pose[0] for pose in poses]))
    seen, known = (torch.cat([judge.features(part) for part in x.flatten(0, 1).split(100)]) for x in (clips, drawn))
    middle, deviation = kid(known, seen, subsets=200, subset_size=min(100, len(seen)))
    return {
        "obeys": mean(obeys),
        "accuracy": mean(accuracy(judge, firsts, label).float()),
        "kid": {"mean": middle, "std": deviation},
        "motions": {
            m: {"obeys": float(obeys[of].mean())} | {part: float(average[of, i].mean()) for i, part in enumerate(NEAR)}
            for m in MOTIONS
            if (of := torch.tensor([other == m for other in motion])).any()
        },
    }


def drawn(n: int, seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``n`` clips in [0, 1] as the generator was trained on, and their prompts, which take turns."""
    sprites, prompt = sheet().to(device), torch.arange(n, device=device) % len(PROMPTS)
    g = torch.Generator(device).manual_seed(seed)
    return torch.cat([draw(sprites, part, g=g)[0] for part in prompt.split(12)]) / 2 + 0.5, prompt


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, clips: torch.Tensor) -> torch.Tensor:
    """Clips in [0, 1] through the autoencoder."""
    back = [vae.decode(vae.encode(clip * 2 - 1).latent_dist.mode()).sample for clip in clips]
    return (torch.stack(back) / 2 + 0.5).clamp(0, 1)


def samples(
    a: argparse.Namespace, guidances: Sequence[float], draw: Callable[[float], torch.Tensor], found: Callable[[torch.Tensor], dict]
) -> dict[float, dict]:
    """What is ``found`` of the clips that ``draw`` gives for each guidance, and both grids on the way."""
    rows = {}
    for guidance in sorted({*guidances, a.guidance}):
        clips = draw(guidance)
        rows[guidance] = found(clips)
        print(f"guidance {guidance:g}: {json.dumps(rows[guidance])}", flush=True)
        if guidance == a.guidance:
            save_grid(clips[SHOWN, ::2].flatten(0, 1).cpu() * 2 - 1, a.out / "frames.webp", columns=8, zoom=1)
            film(clips[SHOWN], a.out / "grid.webp")
    return rows


def card(a: argparse.Namespace, rows: dict[str, dict], clips: int, **parts: nn.Module) -> dict[str, Any]:
    """What goes to ``card.json``: the rows were found of so many clips each."""
    return facts(a, **parts) | {"near": NEAR, "clips": clips, "rows": rows}


def values(card: dict, log: str) -> dict[str, Any]:
    """For both templates, of the training logged as ``log``: all motions together in one table, and one by one in another."""
    rows, near = card["rows"], card["near"]
    whole = [[name, percent(r["obeys"]), percent(r["accuracy"]), deviating(r["kid"])] for name, r in rows.items()]
    single = [[name, m, *_off(e)] for name, r in rows.items() for m, e in r["motions"].items()]
    return {
        **told(card),
        **effort(card["training"][log], "clips"),
        "nouns": ", ".join(NOUNS),
        "shown": ", ".join(PROMPTS[i] for i in SHOWN),
        "n": card["clips"],
        "centre": f"{64 * near['centre']:.1f}",
        "turn": f"{math.degrees(near['turn']):.0f}",
        "size": f"{100 * near['size']:.0f}",
        "whole": table(["clips", "obey the law", "first frame right", "KID ± deviation over subsets"], whole),
        "single": table(["clips", "motion", "obey", "centre off", "turn off", "size off"], single),
    }


def _off(e: dict[str, float]) -> list[str]:
    """Share that obeys and the three mean errors, in pixels, degrees and percent."""
    turn = f"{math.degrees(e['turn']):.1f}°"
    return [f"{100 * e['obeys']:.0f} %", f"{64 * e['centre']:.2f} px", turn, f"{100 * e['size']:.1f} %"]


def film(clips: torch.Tensor, path: Path, columns: int = 4) -> None:
    """Clips in [0, 1] side by side as one small animation, eight frames a second."""
    pictures = [tiled(page, columns) for page in clips.cpu().transpose(0, 1)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=125, loop=0, quality=80, method=6)
