"""Measure the exported ``emoji-text`` and write its model card: README.md, card.json and grid.png.

    python -m training.text.card --out zoo/emoji-text --hardware "one CPU core"

Every figure in the card is measured by this run or read from the log that the export copied.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from string import Template

import torch
from diffusers import StableDiffusion3Pipeline

from omnicache import zoo
from omnicache.measure import accuracy, kid
from training.cards import arguments, budget, mean, percent, sources, table, write
from training.common import grid_png
from training.emoji.card import BATCH, FRESH_SEED, JUDGED_SEED, TRAINING_SEED, Renderings, features, neighbours, reconstruct
from training.emoji.data import emoji_list

TEMPLATE = Path(__file__).with_name("card.md")
GUIDANCES = (1.0, 3.0, 5.0)
SHORT, DEFAULT = 8, 256  # the pipeline's max_sequence_length: zero tokens appended to the caption


@torch.no_grad()
def sample(
    pipe: StableDiffusion3Pipeline, captions: list[str], guidance: float, steps: int, seed: int, padding: int
) -> torch.Tensor:
    """Pictures in [0, 1], one for each caption, as the pipeline draws them."""
    g = torch.Generator().manual_seed(seed)
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": g, "max_sequence_length": padding}
    parts = [captions[i : i + BATCH] for i in range(0, len(captions), BATCH)]
    return torch.cat([pipe(part, output_type="pt", **asked).images.float() for part in parts])


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the grid on the way."""
    pipe = StableDiffusion3Pipeline.from_pretrained(str(a.out)).to(a.device)
    pipe.set_progress_bar_config(disable=True)
    judge = zoo.classifier("emoji").to(a.device)
    captions = [name for _, name in emoji_list(100)]
    renderings = Renderings(len(captions), a.device)
    count = {name: getattr(pipe, name) for name in ("transformer", "text_encoder", "text_encoder_2", "vae")}
    card: dict = {
        "captions": len(captions),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in count.items()},
        "training": budget(a.out),
        "sources": sources(),
        "steps": a.steps,
        "guidance": a.guidance,
        "hardware": a.hardware,
    }
    fresh, _ = renderings.draw(5000, FRESH_SEED)
    known, label = features(judge, fresh), torch.arange(len(captions), device=a.device).repeat(a.seeds)
    held_out, _ = renderings.draw(len(label), JUDGED_SEED)
    rebuilt = reconstruct(pipe.vae, held_out)

    def judged(pictures: torch.Tensor) -> dict[str, dict]:
        middle, deviation = kid(known, features(judge, pictures), subsets=200, subset_size=100)
        right = mean(accuracy(judge, pictures, label).float())
        return {"accuracy": right, "kid": {"mean": middle, "std": deviation, "subset_size": 100, "subsets": 200}}

    card["references"] = {"held-out renderings": judged(held_out), "the same, reconstructed": judged(rebuilt)}
    card["samples"], drawn = {}, {}
    for guidance, padding in [*((g, SHORT) for g in sorted({*GUIDANCES, a.guidance})), (a.guidance, DEFAULT)]:
        parts = [sample(pipe, captions, guidance, a.steps, seed, padding) for seed in range(a.seeds)]
        drawn[guidance, padding] = torch.cat(parts)
        name = f"guidance {guidance:g}, max_sequence_length {padding}"
        card["samples"][name] = judged(drawn[guidance, padding])
        print(f"{name}: {json.dumps(card['samples'][name])}", flush=True)
    shown = drawn[a.guidance, SHORT]
    grid_png(shown[:100].cpu() * 2 - 1, a.out / "grid.png", zoom=1)
    sets = {f"samples, guidance {a.guidance:g}": shown, "held-out renderings": held_out, "the same, reconstructed": rebuilt}
    card["nearest"] = {"training_pictures": a.training, "sets": neighbours(judge, renderings, a.training, sets)}
    card["training_seed"] = TRAINING_SEED
    return card


def readme(card: dict) -> str:
    """The card as Markdown, from ``card.md``."""
    log, near = card["training"]["transformer"], card["nearest"]
    rows = {**card["samples"], **card["references"]}
    spaces = [(space, part) for space in ("pixel", "feature") for part in ("min", "p05", "median")]
    values = {
        "captions": card["captions"],
        "hardware": f" on {card['hardware']}" if card["hardware"] else "",
        "parameters": table(["part", "parameters"], [[name, f"{n:,}"] for name, n in card["parameters"].items()]),
        "minutes": f"{log['minutes']:.0f}",
        "updates": f"{log['step']:,}",
        "pictures": f"{log['pictures']:,}",
        "unicode": card["sources"]["unicode_emoji"],
        "font": card["sources"]["font"],
        "font_sha256": card["sources"]["font_sha256"],
        "steps": card["steps"],
        "guidance": f"{card['guidance']:g}",
        "n": next(iter(card["samples"].values()))["accuracy"]["n"],
        "samples": table(
            ["pictures", "accuracy", "KID ± deviation over subsets"],
            [[name, percent(r["accuracy"]), f"{r['kid']['mean']:.4f} ± {r['kid']['std']:.4f}"] for name, r in rows.items()],
        ),
        "training_n": f"{near['training_pictures']:,}",
        "nearest": table(
            ["pictures", "pixels: minimum", "5 %", "median", "features: minimum", "5 %", "median"],
            [[name, *(f"{found[space][part]:.3f}" for space, part in spaces)] for name, found in near["sets"].items()],
        ),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def main() -> None:
    ask = arguments(guidance=3.0, steps=28)
    ask.add_argument("--seeds", type=int, default=1)
    ask.add_argument("--training", type=int, default=10_000, help="training pictures to look for neighbours in: the first shard")
    write(ask.parse_args(), measure, readme)


if __name__ == "__main__":
    main()
