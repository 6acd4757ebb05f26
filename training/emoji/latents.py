"""Draw and encode the training set of a transformer, in shards, so that training can start after the first.

    python -m training.emoji.latents --work DIR --shards 3

A shard holds the posterior's mean and standard deviation ``(n, 4, 16, 16)`` in fp16 and the class ids; training draws the
latent anew each time, so a picture is never seen twice the same. Without an autoencoder of its own, DIR gets the latents of
the one that ships with the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.common import autocast, device_default, psnr
from training.emoji import autoencoder
from training.emoji.data import Augment, draw, emoji_list, sprites


@torch.no_grad()
def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--shards", type=int, default=3)
    ask.add_argument("--size", type=int, default=20_000)
    ask.add_argument("--classes", type=int, default=100)
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    vae = autoencoder.trained(a.work).to(a.device)
    sheet = sprites([e for e, _ in emoji_list(a.classes)]).to(a.device)
    for shard in range(a.shards):
        path = a.work / f"latents-{shard:03d}.pt"
        if path.exists():
            continue
        g = torch.Generator(a.device).manual_seed(1000 + shard)
        label = torch.arange(a.size, device=a.device) % a.classes
        mean, std = [], []
        for chunk in label.split(100):
            picture = draw(sheet[chunk], Augment(), g=g)
            with autocast(a.device):
                posterior = vae.encode(picture).latent_dist
            mean.append(posterior.mean.half().cpu())
            std.append(posterior.std.half().cpu())
            if not mean[1:]:
                print(f"shard {shard}: autoencoder {psnr(vae.decode(posterior.mean.float()).sample, picture):.2f} dB", flush=True)
        saved = {"mean": torch.cat(mean), "std": torch.cat(std), "label": label.cpu()}
        torch.save(saved, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
        print(f"{path.name}: latent std {saved['mean'].float().std():.3f}", flush=True)


if __name__ == "__main__":
    main()
