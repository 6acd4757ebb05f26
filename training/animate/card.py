"""Measure the exported ``emoji-animate`` and write its model card: README.md, card.json, frames.webp and grid.webp.

    python -m training.animate.card --out zoo/emoji-animate --hardware "one CPU core"

Every figure in the card is measured by this run or read from the log that the export copied.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

from omnicache import zoo
from omnicache.measure import psnr
from training.animate.unet import BUCKETS
from training.cards import arguments, mean, pipeline, table, write
from training.motion import figures
from training.motion.data import PROMPTS
from training.motion.law import MOTIONS

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
    pipe, judge = pipeline(a), zoo.classifier("emoji").to(a.device)
    known, _ = figures.drawn(2 * len(PROMPTS), figures.FRESH_SEED, a.device)
    held_out, prompt = figures.drawn(len(PROMPTS), figures.JUDGED_SEED, a.device)
    rebuilt = figures.reconstruct(pipe.vae, held_out)

    def draw(guidance: float) -> torch.Tensor:
        return sample(pipe, held_out[:, 0], prompt, guidance, a.steps, seed=0)

    def found(clips: torch.Tensor) -> dict:
        near = mean(torch.stack([psnr(clip, other).mean() for clip, other in zip(clips, held_out, strict=True)]))
        return figures.figures(judge, clips, prompt, known) | {"psnr": near}

    rows = {
        "drawn, never trained on": figures.figures(judge, held_out, prompt, known),
        "the same, reconstructed": found(rebuilt),
        "the first frame, standing still": found(rebuilt[:, :1].expand_as(rebuilt)),
    }
    rows |= {f"samples, guidance to {g:g}": row for g, row in figures.samples(a, GUIDANCES, draw, found).items()}
    return figures.card(a, rows, len(prompt), unet=pipe.unet, image_encoder=pipe.image_encoder, vae=pipe.vae)


def values(card: dict) -> dict:
    """For ``card.md``."""
    near = [[name, f"{row['psnr']['mean']:.1f} dB"] for name, row in card["rows"].items() if "psnr" in row]
    return figures.values(card, "unet") | {
        "buckets": ", ".join(f"{bucket} {motion}" for motion, bucket in BUCKETS.items()),
        "psnr": table(["clips", "PSNR to the drawn clip"], near),
    }


def main() -> None:
    write(arguments(guidance=2.0, steps=25).parse_args(), Path(__file__).with_name("card.md"), measure, values)


if __name__ == "__main__":
    main()
