"""Measure an exported folder and write its model card: README.md, card.json, grid.png and reconstructions.png.

    python -m training.emoji.card --out src/omnicache/zoo/emoji

Every figure in the card is measured by this run or read from the logs that the export copied.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from string import Template

import torch
from diffusers import AutoencoderKL, DiTPipeline

from omnicache.measure import accuracy, kid, nearest, psnr, ssim
from omnicache.zoo.classifier import Classifier
from training.cards import arguments, budget, mean, percent, sources, spread, table, write
from training.common import grid_png
from training.emoji.data import Augment, draw, emoji_list, sprites

TEMPLATE = Path(__file__).with_name("card.md")
FRESH_SEED, JUDGED_SEED, TRAINING_SEED = 7, 8, 1000  # the last is the first shard's, in latents.py
GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.0)
BATCH = 50


class Renderings:
    """Pictures ``(n, 3, 64, 64)`` in [0, 1] as the generator was trained on, in chunks of 100 as in latents.py."""

    def __init__(self, classes: int, device: str):
        self.sheet, self.device = sprites([e for e, _ in emoji_list(classes)]).to(device), device

    def chunks(self, n: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield ``(pictures, labels)``; the classes take turns."""
        g = torch.Generator(self.device).manual_seed(seed)
        for label in (torch.arange(n, device=self.device) % len(self.sheet)).split(100):
            yield draw(self.sheet[label], Augment(), g=g) / 2 + 0.5, label

    def draw(self, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All chunks at once."""
        pictures, labels = zip(*self.chunks(n, seed), strict=True)
        return torch.cat(pictures), torch.cat(labels)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [0, 1] through the autoencoder, by the posterior's mode."""
    back = [vae.decode(vae.encode(p * 2 - 1).latent_dist.mode()).sample for p in pictures.split(BATCH)]
    return (torch.cat(back) / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def sample(pipe: DiTPipeline, label: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Pictures in [0, 1], one for each label, as the pipeline draws them."""
    g = torch.Generator().manual_seed(seed)
    parts = [
        pipe(part.tolist(), guidance_scale=guidance, num_inference_steps=steps, generator=g, output_type="pt").images
        for part in label.split(BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def features(judge: Classifier, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([judge.features(p) for p in pictures.split(BATCH)])


def neighbours(judge: Classifier, training: Renderings, size: int, sets: dict[str, torch.Tensor]) -> dict[str, dict]:
    """Distance of each set's pictures to the nearest of the first ``size`` training pictures.

    In pixels, as the root of the mean squared difference of values in [0, 1]; in the classifier's features, Euclidean.
    """
    seen = {name: features(judge, pictures) for name, pictures in sets.items()}
    pixel = {name: torch.full((len(p),), torch.inf, device=p.device) for name, p in sets.items()}
    feature = {name: d.clone() for name, d in pixel.items()}
    buffer: list[torch.Tensor] = []
    for i, (pictures, _) in enumerate(training.chunks(size, TRAINING_SEED), 1):
        buffer.append(pictures)
        if len(buffer) < 20 and i * 100 < size:
            continue
        known, buffer = torch.cat(buffer), []
        known_features = features(judge, known)
        for name, pictures in sets.items():
            away = nearest(pictures.flatten(1), known.flatten(1)) / pictures[0].numel() ** 0.5
            pixel[name] = torch.minimum(pixel[name], away)
            feature[name] = torch.minimum(feature[name], nearest(seen[name], known_features))
    return {name: {"pixel": spread(pixel[name]), "feature": spread(feature[name])} for name in sets}


def measure(a: argparse.Namespace) -> dict:
    """All figures, and the two PNGs on the way."""
    pipe = DiTPipeline.from_pretrained(str(a.out)).to(a.device)
    pipe.set_progress_bar_config(disable=True)
    judge = Classifier.load(a.out / "classifier").to(a.device)
    classes = judge.head.out_features
    renderings = Renderings(classes, a.device)
    count = {"transformer": pipe.transformer, "vae": pipe.vae, "classifier": judge}
    card: dict = {
        "classes": classes,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in count.items()},
        "training": budget(a.out),
        "sources": sources(),
        "steps": a.steps,
        "guidance": a.guidance,
        "hardware": a.hardware,
    }

    fresh, truth = renderings.draw(max(5000, 2 * classes), FRESH_SEED)
    back = reconstruct(pipe.vae, fresh[:500])
    card["autoencoder"] = {"psnr": mean(psnr(back, fresh[:500])), "ssim": mean(ssim(back, fresh[:500]))}
    card["classifier"] = {
        "renderings": mean(accuracy(judge, fresh, truth).float()),
        "reconstructions": mean(accuracy(judge, back, truth[:500]).float()),
    }
    shown = torch.cat([fresh[:10], back[:10], fresh[10:20], back[10:20]])
    grid_png(shown.cpu() * 2 - 1, a.out / "reconstructions.png")
    print(json.dumps({k: card[k] for k in ("autoencoder", "classifier")}), flush=True)

    label = torch.arange(classes).repeat(a.seeds)
    held_out, _ = renderings.draw(len(label), JUDGED_SEED)
    rebuilt, known = reconstruct(pipe.vae, held_out), features(judge, fresh)
    size = min(100, len(label))

    def apart(pictures: torch.Tensor) -> dict[str, float]:
        middle, deviation = kid(known, features(judge, pictures), subsets=200, subset_size=size)
        return {"mean": middle, "std": deviation, "subset_size": size, "subsets": 200}

    card["kid"] = {"renderings": apart(held_out), "reconstructions": apart(rebuilt)}
    card["samples"], drawn = {}, {}
    for guidance in sorted({*GUIDANCES, a.guidance}):
        parts = [sample(pipe, part, guidance, a.steps, seed) for seed, part in enumerate(label.split(classes))]
        drawn[guidance] = torch.cat(parts)
        found = {"accuracy": mean(accuracy(judge, drawn[guidance], label).float()), "kid": apart(drawn[guidance])}
        card["samples"][f"{guidance:g}"] = found
        print(f"guidance {guidance:g}: {json.dumps(found)}", flush=True)
    grid_png(drawn[a.guidance][: min(classes, 100)].cpu() * 2 - 1, a.out / "grid.png")
    sets = {f"samples, guidance {g:g}": drawn[g] for g in sorted({1.0, a.guidance})}
    sets |= {"held-out renderings": held_out, "the same, reconstructed": rebuilt}
    card["nearest"] = {"training_pictures": a.training, "sets": neighbours(judge, renderings, a.training, sets)}
    return card


def readme(card: dict) -> str:
    """The card as Markdown, from ``card.md``."""
    log, near = card["training"], card["nearest"]
    kid_of = {**card["kid"], **{g: s["kid"] for g, s in card["samples"].items()}}
    shown = {name: f"{k['mean']:.4f} ± {k['std']:.4f}" for name, k in kid_of.items()}
    rows = [
        [name, f"{card['parameters'][part]:,}", f"{log[key]['minutes']:.0f}", f"{log[key]['step']:,}"]
        for name, part, key in (
            ("transformer", "transformer", "transformer"),
            ("autoencoder", "vae", "autoencoder"),
            ("classifier", "classifier", "classifier"),
        )
        if key in log
    ]
    values = {
        "classes": card["classes"],
        "hardware": f" on {card['hardware']}" if card["hardware"] else "",
        "budget": table(["part", "parameters", "minutes of training", "steps"], rows),
        "unicode": card["sources"]["unicode_emoji"],
        "font": card["sources"]["font"],
        "font_sha256": card["sources"]["font_sha256"],
        "psnr": f"{card['autoencoder']['psnr']['mean']:.1f}",
        "ssim": f"{card['autoencoder']['ssim']['mean']:.3f}",
        "psnr_n": card["autoencoder"]["psnr"]["n"],
        "judge": percent(card["classifier"]["renderings"]),
        "judge_soft": percent(card["classifier"]["reconstructions"]),
        "steps": card["steps"],
        "guidance": f"{card['guidance']:g}",
        "samples_n": card["samples"]["1"]["accuracy"]["n"],
        "seeds": card["samples"]["1"]["accuracy"]["n"] // card["classes"],
        "subset": card["kid"]["renderings"]["subset_size"],
        "samples": table(
            ["pictures", "accuracy", "KID ± deviation over subsets"],
            [[f"guidance {g}", percent(s["accuracy"]), shown[g]] for g, s in card["samples"].items()]
            + [["held-out renderings", percent(card["classifier"]["renderings"]), shown["renderings"]]]
            + [["the same, reconstructed", percent(card["classifier"]["reconstructions"]), shown["reconstructions"]]],
        ),
        "training_n": f"{near['training_pictures']:,}",
        "nearest": table(
            ["pictures", "pixels: minimum", "5 %", "median", "features: minimum", "5 %", "median"],
            [
                [
                    name,
                    *(f"{found[space][part]:.3f}" for space in ("pixel", "feature") for part in ("min", "p05", "median")),
                ]
                for name, found in near["sets"].items()
            ],
        ),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def main() -> None:
    ask = arguments(guidance=2.0, steps=50)
    ask.add_argument("--seeds", type=int, default=2)
    ask.add_argument("--training", type=int, default=20_000, help="training pictures to look for neighbours in")
    write(ask.parse_args(), measure, readme)


if __name__ == "__main__":
    main()
