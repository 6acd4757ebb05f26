"""What the cards of both picture models measure: whether samples show the right thing, look like renderings and are new."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL

from omnicache.measure import accuracy, kid, nearest
from omnicache.zoo.classifier import Classifier
from training.cards import deviating, mean, percent, spread, table
from training.emoji.data import Augment, draw, sheet

FRESH_SEED, JUDGED_SEED, TRAINING_SEED = 7, 8, 1000  # the last is the first shard's, in latents.py
BATCH = 50


class Renderings:
    """Pictures ``(n, 3, 64, 64)`` in [0, 1] as the generator was trained on, in chunks of 100 as in latents.py."""

    def __init__(self, classes: int, device: str):
        self.sheet, self.device = sheet(classes).to(device), device

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
def features(judge: Classifier, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([judge.features(p) for p in pictures.split(BATCH)])


def apart(judge: Classifier, pictures: torch.Tensor, known: torch.Tensor) -> dict[str, float]:
    """Kernel distance of pictures to others with the features ``known``."""
    size = min(100, len(pictures))
    middle, deviation = kid(known, features(judge, pictures), subsets=200, subset_size=size)
    return {"mean": middle, "std": deviation, "subset_size": size, "subsets": 200}


def judged(judge: Classifier, pictures: torch.Tensor, label: torch.Tensor, known: torch.Tensor) -> dict[str, dict]:
    """Whether pictures show what they should, and how far they are from others with the features ``known``."""
    return {"accuracy": mean(accuracy(judge, pictures, label).float()), "kid": apart(judge, pictures, known)}


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


def tables(rows: dict[str, dict], near: dict) -> dict[str, str]:
    """For the templates: what :func:`judged` found of each row, and neighbours among ``training_n`` pictures."""
    spaces = [(space, part) for space in ("pixel", "feature") for part in ("min", "p05", "median")]
    return {
        "samples": table(
            ["pictures", "accuracy", "KID ± deviation over subsets"],
            [[name, percent(row["accuracy"]), deviating(row["kid"])] for name, row in rows.items()],
        ),
        "training_n": f"{near['training_pictures']:,}",
        "nearest": table(
            ["pictures", "pixels: minimum", "5 %", "median", "features: minimum", "5 %", "median"],
            [[name, *(f"{found[space][part]:.3f}" for space, part in spaces)] for name, found in near["sets"].items()],
        ),
    }
