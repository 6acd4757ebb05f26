"""Draw and encode the training set of a transformer, in shards, so that training can start after the first.

    python -m training.emoji.latents --work DIR --shards 3

A shard holds the posterior's mean and standard deviation ``(n, 4, 16, 16)`` in fp16 and the class ids; training draws the
latent anew each time, so a picture is never seen twice the same. Without an autoencoder of its own, DIR gets the latents of
the one that ships with the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training.common import autocast, device_default, psnr
from training.emoji import autoencoder
from training.emoji.data import Augment, draw, sheet


@torch.no_grad()
def encode(vae: AutoencoderKL, path: Path, chunks: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Write a shard of pictures or clips ``(n, ..., 3, h, w)`` in [-1, 1] and their labels ``(n,)``, chunk by chunk."""
    found: dict[str, list[torch.Tensor]] = {"mean": [], "std": [], "label": []}
    for pictures, label in chunks:
        flat = pictures.flatten(0, -4)
        with autocast(vae.device):
            posterior = vae.encode(flat).latent_dist
        if not found["mean"]:
            back = vae.decode(posterior.mean[:100].float()).sample
            print(f"{path.name}: autoencoder {psnr(back, flat[:100]):.2f} dB", flush=True)
        found["mean"].append(posterior.mean.half().cpu().unflatten(0, pictures.shape[:-3]))
        found["std"].append(posterior.std.half().cpu().unflatten(0, pictures.shape[:-3]))
        found["label"].append(label.cpu())
    saved = {name: torch.cat(parts) for name, parts in found.items()}
    torch.save(saved, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)
    print(f"{path.name}: latent std {saved['mean'].float().std():.3f}", flush=True)


def shards(work: Path, count: int) -> Iterator[tuple[Path, int]]:
    """Path and seed of every shard that is not there yet."""
    for shard in range(count):
        path = work / f"latents-{shard:03d}.pt"
        if not path.exists():
            yield path, 1000 + shard


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--shards", type=int, default=3)
    ask.add_argument("--size", type=int, default=20_000)
    ask.add_argument("--classes", type=int, default=100)
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    vae = autoencoder.trained(a.work).to(a.device)
    sprites = sheet(a.classes).to(a.device)
    label = torch.arange(a.size, device=a.device) % a.classes
    a.work.mkdir(parents=True, exist_ok=True)
    for path, seed in shards(a.work, a.shards):
        g = torch.Generator(a.device).manual_seed(seed)
        encode(vae, path, ((draw(sprites[chunk], Augment(), g=g), chunk) for chunk in label.split(100)))


if __name__ == "__main__":
    main()
