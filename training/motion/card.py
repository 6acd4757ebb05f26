"""Measure the exported ``emoji-motion`` and write its model card: README.md, card.json, frames.webp and grid.webp.

    python -m training.motion.card --out zoo/emoji-motion --hardware "one CPU core"

Every figure in the card is measured by this run or read from the log that the export copied.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import LattePipeline

from omnicache import zoo
from training.cards import arguments, pipeline, write
from training.motion import figures
from training.motion.data import PROMPTS
from training.motion.law import MOTIONS

GUIDANCES = (1.0, 2.0, 4.0)
BATCH = 8


@torch.no_grad()
def sample(pipe: LattePipeline, prompt: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Clips ``(n, 16, 3, 64, 64)`` in [0, 1], as the pipeline draws them."""
    g = torch.Generator().manual_seed(seed)
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": g, "height": 64, "width": 64}
    asked |= {"clean_caption": False, "output_type": "pt"}
    return torch.cat([pipe([PROMPTS[int(i)] for i in part], **asked).frames.float() for part in prompt.split(BATCH)])


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the grids on the way."""
    pipe, judge = pipeline(a), zoo.classifier("emoji").to(a.device)
    prompt = torch.arange(len(PROMPTS), device=a.device).repeat(a.seeds)
    known, _ = figures.drawn(2 * len(PROMPTS), figures.FRESH_SEED, a.device)
    held_out, _ = figures.drawn(len(prompt), figures.JUDGED_SEED, a.device)

    def draw(guidance: float) -> torch.Tensor:
        turns = enumerate(prompt.split(len(PROMPTS)))
        return torch.cat([sample(pipe, part, guidance, a.steps, seed) for seed, part in turns])

    def found(clips: torch.Tensor) -> dict:
        return figures.figures(judge, clips, prompt, known)

    rows = {
        "drawn, never trained on": found(held_out),
        "the same, reconstructed": found(figures.reconstruct(pipe.vae, held_out)),
    }
    rows |= {f"samples, guidance {g:g}": row for g, row in figures.samples(a, GUIDANCES, draw, found).items()}
    return figures.card(a, rows, len(prompt), transformer=pipe.transformer, text_encoder=pipe.text_encoder, vae=pipe.vae)


def values(card: dict) -> dict:
    """For ``card.md``."""
    return figures.values(card, "transformer") | {"motions": ", ".join(MOTIONS)}


def main() -> None:
    ask = arguments(guidance=2.0, steps=50)
    ask.add_argument("--seeds", type=int, default=1)
    write(ask.parse_args(), Path(__file__).with_name("card.md"), measure, values)


if __name__ == "__main__":
    main()
