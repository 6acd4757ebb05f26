"""Draw and encode the clips that ``emoji-motion`` learns from, in shards, with the autoencoder of ``emoji``.

    python -m training.motion.latents --work DIR --shards 5

A shard of 480 clips takes two or three minutes of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.common import device_default
from training.emoji import autoencoder
from training.emoji.latents import encode, shards
from training.motion.data import PROMPTS, draw, sheet


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
        encode(vae, path, ((draw(sprites, chunk, g=g)[0], chunk) for chunk in label.split(12)))


if __name__ == "__main__":
    main()
