"""Measure the exported ``emoji-unet`` and write its model card: README.md, card.json and grid.webp.

    python -m training.unet.card --out zoo/emoji-unet --hardware "one CPU core"

Every figure in the card is measured by this run or read from the log that the export copied.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from omnicache import zoo
from training.cards import arguments, effort, facts, pipeline, told, write
from training.common import save_grid
from training.emoji import figures
from training.emoji.data import names

GUIDANCES = (1.0, 2.0, 4.0)


@torch.no_grad()
def sample(pipe: StableDiffusionPipeline, captions: list[str], guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Pictures in [0, 1], one for each caption, as the pipeline draws them."""
    g = torch.Generator().manual_seed(seed)
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": g, "output_type": "pt"}
    parts = [captions[i : i + figures.BATCH] for i in range(0, len(captions), figures.BATCH)]
    return torch.cat([pipe(part, **asked).images.float() for part in parts])


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the grid on the way."""
    pipe, judge, captions = pipeline(a), zoo.classifier("emoji").to(a.device), names()
    renderings = figures.Renderings(len(captions), a.device)
    card: dict = {"captions": len(captions), **facts(a, unet=pipe.unet, text_encoder=pipe.text_encoder, vae=pipe.vae)}
    fresh, _ = renderings.draw(5000, figures.FRESH_SEED)
    known, label = figures.features(judge, fresh), torch.arange(len(captions), device=a.device).repeat(a.seeds)
    held_out, _ = renderings.draw(len(label), figures.JUDGED_SEED)
    references = {"held-out renderings": held_out, "the same, reconstructed": figures.reconstruct(pipe.vae, held_out)}
    card["references"] = {name: figures.judged(judge, pictures, label, known) for name, pictures in references.items()}
    card["samples"], drawn = {}, {}
    for guidance in sorted({*GUIDANCES, a.guidance}):
        drawn[guidance] = torch.cat([sample(pipe, captions, guidance, a.steps, seed) for seed in range(a.seeds)])
        name = f"guidance {guidance:g}"
        card["samples"][name] = figures.judged(judge, drawn[guidance], label, known)
        print(f"{name}: {json.dumps(card['samples'][name])}", flush=True)
    save_grid(drawn[a.guidance][:100].cpu() * 2 - 1, a.out / "grid.webp", zoom=1)
    sets = {f"samples, guidance {a.guidance:g}": drawn[a.guidance], **references}
    card["nearest"] = {"training_pictures": a.training, "sets": figures.neighbours(judge, renderings, a.training, sets)}
    card["training_seed"] = figures.TRAINING_SEED
    return card


def values(card: dict) -> dict:
    """For ``card.md``."""
    return {
        **told(card),
        **effort(card["training"]["unet"], "pictures"),
        **figures.tables({**card["samples"], **card["references"]}, card["nearest"]),
        "captions": card["captions"],
        "n": next(iter(card["samples"].values()))["accuracy"]["n"],
    }


def main() -> None:
    ask = arguments(guidance=2.0, steps=50)
    ask.add_argument("--seeds", type=int, default=1)
    ask.add_argument("--training", type=int, default=10_000, help="training pictures to look for neighbours in: the first shard")
    write(ask.parse_args(), Path(__file__).with_name("card.md"), measure, values)


if __name__ == "__main__":
    main()
