"""Measure the exported ``emoji-animate`` and write its model card: README.md, card.json, grid.png and grid.webp.

    python -m training.animate.card --out zoo/emoji-animate --hardware "one CPU core"

Every figure in the card is measured by this run or read from the log that the export copied.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from string import Template

import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

from omnicache import zoo
from omnicache.measure import psnr
from training.animate.unet import BUCKETS
from training.cards import arguments, budget, mean, sources, table, write
from training.common import grid_png
from training.motion.card import FRESH_SEED, JUDGED_SEED, SHOWN
from training.motion.data import NOUNS, PROMPTS
from training.motion.figures import NEAR, drawn, figures, film, reconstruct, tables
from training.motion.law import MOTIONS

TEMPLATE = Path(__file__).with_name("card.md")
GUIDANCES = (1.0, 2.0, 3.0)


@torch.no_grad()
def sample(
    pipe: StableVideoDiffusionPipeline, firsts: torch.Tensor, prompt: torch.Tensor, guidance: float, steps: int, seed: int
) -> torch.Tensor:
    """Clips ``(n, 16, 3, 64, 64)`` in [0, 1] that begin with ``firsts`` ``(n, 3, 64, 64)``, as the pipeline draws them."""
    pages = (firsts * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu()
    asked = {"height": 64, "width": 64, "num_inference_steps": steps, "max_guidance_scale": guidance, "output_type": "pt"}
    clips = []
    for i, (page, which) in enumerate(zip(pages, prompt, strict=True)):
        bucket = BUCKETS[MOTIONS[int(which) % len(MOTIONS)]]
        g = torch.Generator().manual_seed(seed + i)
        clips.append(pipe(Image.fromarray(page.numpy()), motion_bucket_id=bucket, generator=g, **asked).frames[0].float())
    return torch.stack(clips)


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the grids on the way."""
    pipe = StableVideoDiffusionPipeline.from_pretrained(str(a.out)).to(a.device)
    pipe.set_progress_bar_config(disable=True)
    judge = zoo.classifier("emoji").to(a.device)
    count = {name: getattr(pipe, name) for name in ("unet", "image_encoder", "vae")}
    known, _ = drawn(2 * len(PROMPTS), FRESH_SEED, a.device)
    held_out, prompt = drawn(len(PROMPTS), JUDGED_SEED, a.device)
    rebuilt = reconstruct(pipe.vae, held_out)

    def judged(clips: torch.Tensor) -> dict:
        near = mean(torch.stack([psnr(clip, other).mean() for clip, other in zip(clips, held_out, strict=True)]))
        return figures(judge, clips, prompt, known) | {"psnr": near}

    rows = {
        "drawn, never trained on": figures(judge, held_out, prompt, known),
        "the same, reconstructed": judged(rebuilt),
        "the first frame, standing still": judged(rebuilt[:, :1].expand_as(rebuilt)),
    }
    for guidance in sorted({*GUIDANCES, a.guidance}):
        clips = sample(pipe, held_out[:, 0], prompt, guidance, a.steps, seed=0)
        rows[f"samples, guidance to {guidance:g}"] = judged(clips)
        print(json.dumps(rows[f"samples, guidance to {guidance:g}"]), flush=True)
        if guidance == a.guidance:
            grid_png(clips[SHOWN, ::2].flatten(0, 1).cpu() * 2 - 1, a.out / "grid.png", columns=8, zoom=1)
            film(clips[SHOWN], a.out / "grid.webp")
    return {
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in count.items()},
        "training": budget(a.out),
        "sources": sources(),
        "steps": a.steps,
        "guidance": a.guidance,
        "hardware": a.hardware,
        "near": NEAR,
        "clips": len(prompt),
        "rows": rows,
    }


def readme(card: dict) -> str:
    """The card as Markdown, from ``card.md``."""
    log = card["training"]["unet"]
    whole, single = tables(card["rows"])
    values = {
        "nouns": ", ".join(NOUNS),
        "buckets": ", ".join(f"{bucket} {motion}" for motion, bucket in BUCKETS.items()),
        "shown": ", ".join(PROMPTS[i] for i in SHOWN),
        "hardware": f" on {card['hardware']}" if card["hardware"] else "",
        "parameters": table(["part", "parameters"], [[name, f"{n:,}"] for name, n in card["parameters"].items()]),
        "minutes": f"{log['minutes']:.0f}",
        "updates": f"{log['step']:,}",
        "seen": f"{log['clips']:,}",
        "unicode": card["sources"]["unicode_emoji"],
        "font": card["sources"]["font"],
        "font_sha256": card["sources"]["font_sha256"],
        "steps": card["steps"],
        "guidance": f"{card['guidance']:g}",
        "n": card["clips"],
        "centre": f"{64 * card['near']['centre']:.1f}",
        "turn": f"{math.degrees(card['near']['turn']):.0f}",
        "size": f"{100 * card['near']['size']:.0f}",
        "whole": whole,
        "single": single,
        "psnr": table(
            ["clips", "PSNR to the drawn clip"],
            [[name, f"{row['psnr']['mean']:.1f} dB"] for name, row in card["rows"].items() if "psnr" in row],
        ),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def main() -> None:
    write(arguments(guidance=2.0, steps=25).parse_args(), measure, readme)


if __name__ == "__main__":
    main()
