"""Measure the exported ``emoji-motion`` and write its model card: README.md, card.json, grid.png and grid.webp.

    python -m training.motion.card --out zoo/emoji-motion --hardware "one CPU core"

Every figure in the card is measured by this run or read from the log that the export copied.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from string import Template

import torch
from diffusers import LattePipeline

from omnicache import zoo
from training.cards import arguments, budget, sources, table, write
from training.common import grid_png
from training.motion.data import NOUNS, PROMPTS
from training.motion.figures import NEAR, drawn, figures, film, reconstruct, tables
from training.motion.law import MOTIONS

TEMPLATE = Path(__file__).with_name("card.md")
GUIDANCES = (1.0, 2.0, 4.0)
FRESH_SEED, JUDGED_SEED = 7, 8
BATCH = 8
SHOWN = [len(MOTIONS) * i + i % len(MOTIONS) for i in range(len(NOUNS))]
"""One prompt of each noun, the motions in turn."""


@torch.no_grad()
def sample(pipe: LattePipeline, prompt: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Clips ``(n, 16, 3, 64, 64)`` in [0, 1], as the pipeline draws them."""
    g = torch.Generator().manual_seed(seed)
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": g, "height": 64, "width": 64}
    asked |= {"clean_caption": False, "output_type": "pt"}
    return torch.cat([pipe([PROMPTS[int(i)] for i in part], **asked).frames.float() for part in prompt.split(BATCH)])


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the grids on the way."""
    pipe = LattePipeline.from_pretrained(str(a.out)).to(a.device)
    pipe.set_progress_bar_config(disable=True)
    judge = zoo.classifier("emoji").to(a.device)
    count = {name: getattr(pipe, name) for name in ("transformer", "text_encoder", "vae")}
    prompt = torch.arange(len(PROMPTS), device=a.device).repeat(a.seeds)
    known, _ = drawn(2 * len(PROMPTS), FRESH_SEED, a.device)
    held_out, _ = drawn(len(prompt), JUDGED_SEED, a.device)
    rows = {
        "drawn, never trained on": figures(judge, held_out, prompt, known),
        "the same, reconstructed": figures(judge, reconstruct(pipe.vae, held_out), prompt, known),
    }
    for guidance in sorted({*GUIDANCES, a.guidance}):
        parts = [sample(pipe, part, guidance, a.steps, seed) for seed, part in enumerate(prompt.split(len(PROMPTS)))]
        clips = torch.cat(parts)
        rows[f"samples, guidance {guidance:g}"] = figures(judge, clips, prompt, known)
        print(json.dumps(rows[f"samples, guidance {guidance:g}"]), flush=True)
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
    log = card["training"]["transformer"]
    whole, single = tables(card["rows"])
    values = {
        "nouns": ", ".join(NOUNS),
        "motions": ", ".join(MOTIONS),
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
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def main() -> None:
    ask = arguments(guidance=2.0, steps=50)
    ask.add_argument("--seeds", type=int, default=1)
    write(ask.parse_args(), measure, readme)


if __name__ == "__main__":
    main()
