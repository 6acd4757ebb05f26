"""Measure an exported folder and write its model card: README.md, card.json, grid.webp and reconstructions.webp.

    python -m training.emoji.card --out src/omnicache/zoo/emoji

Every figure in the card is measured by this run or read from the logs that the export copied.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import DiTPipeline

from omnicache.measure import accuracy, psnr, ssim
from omnicache.zoo.classifier import Classifier
from training.cards import arguments, facts, mean, percent, pipeline, table, told, write
from training.common import save_grid
from training.emoji import figures

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.0)


@torch.no_grad()
def sample(pipe: DiTPipeline, label: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Pictures in [0, 1], one for each label, as the pipeline draws them."""
    g = torch.Generator().manual_seed(seed)
    parts = [
        pipe(part.tolist(), guidance_scale=guidance, num_inference_steps=steps, generator=g, output_type="pt").images
        for part in label.split(figures.BATCH)
    ]
    return torch.cat(parts)


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the two grids on the way."""
    pipe = pipeline(a)
    judge = Classifier.load(a.out / "classifier").to(a.device)
    classes = judge.head.out_features
    renderings = figures.Renderings(classes, a.device)
    parts = {"transformer": pipe.transformer, "vae": pipe.vae, "classifier": judge}
    card: dict = {"classes": classes, **facts(a, **parts)}

    fresh, truth = renderings.draw(max(5000, 2 * classes), figures.FRESH_SEED)
    back = figures.reconstruct(pipe.vae, fresh[:500])
    card["autoencoder"] = {"psnr": mean(psnr(back, fresh[:500])), "ssim": mean(ssim(back, fresh[:500]))}
    card["classifier"] = {
        "renderings": mean(accuracy(judge, fresh, truth).float()),
        "reconstructions": mean(accuracy(judge, back, truth[:500]).float()),
    }
    shown = torch.cat([fresh[:10], back[:10], fresh[10:20], back[10:20]])
    save_grid(shown.cpu() * 2 - 1, a.out / "reconstructions.webp")
    print(json.dumps({k: card[k] for k in ("autoencoder", "classifier")}), flush=True)

    label = torch.arange(classes).repeat(a.seeds)
    held_out, _ = renderings.draw(len(label), figures.JUDGED_SEED)
    rebuilt, known = figures.reconstruct(pipe.vae, held_out), figures.features(judge, fresh)
    card["kid"] = {"renderings": figures.apart(judge, held_out, known), "reconstructions": figures.apart(judge, rebuilt, known)}
    card["samples"], drawn = {}, {}
    for guidance in sorted({*GUIDANCES, a.guidance}):
        parts = [sample(pipe, part, guidance, a.steps, seed) for seed, part in enumerate(label.split(classes))]
        drawn[guidance] = torch.cat(parts)
        found = card["samples"][f"{guidance:g}"] = figures.judged(judge, drawn[guidance], label, known)
        print(f"guidance {guidance:g}: {json.dumps(found)}", flush=True)
    save_grid(drawn[a.guidance][: min(classes, 100)].cpu() * 2 - 1, a.out / "grid.webp", zoom=1)
    sets = {f"samples, guidance {g:g}": drawn[g] for g in sorted({1.0, a.guidance})}
    sets |= {"held-out renderings": held_out, "the same, reconstructed": rebuilt}
    card["nearest"] = {"training_pictures": a.training, "sets": figures.neighbours(judge, renderings, a.training, sets)}
    return card


def values(card: dict) -> dict:
    """For ``card.md``."""
    rows = {f"guidance {g}": found for g, found in card["samples"].items()}
    for name, key in (("held-out renderings", "renderings"), ("the same, reconstructed", "reconstructions")):
        rows[name] = {"accuracy": card["classifier"][key], "kid": card["kid"][key]}
    budget = [
        [name, f"{card['parameters'][part]:,}", f"{log['minutes']:.0f}", f"{log['step']:,}"]
        for name, part in (("transformer", "transformer"), ("autoencoder", "vae"), ("classifier", "classifier"))
        if (log := card["training"].get(name))
    ]
    drawn = card["samples"]["1"]["accuracy"]["n"]
    return {
        **told(card),
        **figures.tables(rows, card["nearest"]),
        "classes": card["classes"],
        "budget": table(["part", "parameters", "minutes of training", "steps"], budget),
        "psnr": f"{card['autoencoder']['psnr']['mean']:.1f}",
        "ssim": f"{card['autoencoder']['ssim']['mean']:.3f}",
        "psnr_n": card["autoencoder"]["psnr"]["n"],
        "judge": percent(card["classifier"]["renderings"]),
        "judge_soft": percent(card["classifier"]["reconstructions"]),
        "samples_n": drawn,
        "seeds": drawn // card["classes"],
        "subset": card["kid"]["renderings"]["subset_size"],
    }


def main() -> None:
    ask = arguments(guidance=2.0, steps=50)
    ask.add_argument("--seeds", type=int, default=2)
    ask.add_argument("--training", type=int, default=20_000, help="training pictures to look for neighbours in")
    write(ask.parse_args(), Path(__file__).with_name("card.md"), measure, values)


if __name__ == "__main__":
    main()
