"""Draw and encode the clips that ``emoji-motion`` and ``emoji-animate`` learn from, in shards, with the autoencoder of ``emoji``.

    python -m training.motion.latents --work DIR --shards 5

A shard of 480 clips takes two or three minutes of one core. Beside each lie the clips' first frames, as pictures and, with the
noise that StableVideoDiffusionPipeline adds to a first frame, as latents; only ``emoji-animate`` reads them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.common import device_default
from training.emoji import autoencoder
from training.emoji.latents import encode, shards
from training.motion.data import PROMPTS, draw, sheet

NOISE = 0.02  # the pipeline's noise_aug_strength


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--shards", type=int, default=5)
    ask.add_argument("--size", type=int, default=480)
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    vae, sprites = autoencoder.trained(a.work).to(a.device), sheet().to(a.device)
    label = torch.arange(a.size, device=a.device) % len(PROMPTS)
    a.work.mkdir(parents=True, exist_ok=True)
    for path, seed in shards(a.work, a.shards):
        g = torch.Generator(a.device).manual_seed(seed)
        firsts: list[torch.Tensor] = []

        def chunks():
            for chunk in label.split(12):
                clips = draw(sprites, chunk, g=g)[0]
                firsts.append(clips[:, 0])
                yield clips, chunk

        encode(vae, path, chunks())
        picture = torch.cat(firsts)
        noised = picture + NOISE * torch.randn(picture.shape, generator=g, device=a.device)
        with torch.no_grad():
            latent = torch.cat([vae.encode(part).latent_dist.mode() for part in noised.split(48)])
        saved = {"picture": ((picture / 2 + 0.5) * 255).round().byte().cpu(), "latent": latent.half().cpu()}
        torch.save(saved, a.work / path.name.replace("latents", "firsts"))


if __name__ == "__main__":
    main()
