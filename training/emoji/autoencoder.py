"""Train the emoji autoencoder: a small ``AutoencoderKL``, 64x64x3 -> 16x16x4.

python -m training.emoji.autoencoder --minutes 25 --work DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from omnicache import zoo
from training.common import Budget, Checkpoint, Ema, autocast, averaged, device_default, psnr, save_grid
from training.emoji.data import Augment, draw, sheet

SEED = 0


def build() -> AutoencoderKL:
    levels = (32, 64, 96)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def trained(work: Path) -> AutoencoderKL:
    """The one in ``work``, with averaged weights, or the one that ships with the package where ``work`` has none."""
    if not (work / "autoencoder.pt").exists():
        return AutoencoderKL.from_pretrained(str(zoo.path("emoji") / "vae")).eval()
    model = build()
    model.load_state_dict(averaged(work, "autoencoder"))
    return model.eval()


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--minutes", type=float, default=25)
    ask.add_argument("--batch", type=int, default=16)
    ask.add_argument("--classes", type=int, default=100)
    ask.add_argument("--kl", type=float, default=3e-4, help="weight of the mean KL per latent value")
    ask.add_argument("--lr", type=float, default=1.5e-3)
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    torch.manual_seed(SEED)
    model = build().to(a.device)
    sprites = sheet(a.classes).to(a.device)
    held_out = draw(sprites, Augment(), g=torch.Generator(a.device).manual_seed(1))
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    ema, budget = Ema(model, 0.999), Budget(a.minutes, device=a.device)
    kept = Checkpoint(a.work, "autoencoder", {"model": model, "opt": opt, "ema": ema, "budget": budget})
    kept.load()

    def evaluate() -> float:
        best = build().to(a.device)
        best.load_state_dict(ema.shadow)
        with torch.no_grad():
            back = best.decode(best.encode(held_out).latent_dist.mode()).sample
        save_grid(torch.cat([held_out[:20], back[:20].cpu()]).cpu(), a.work / "autoencoder.png")
        return psnr(back, held_out)

    while not budget.over:
        for group in opt.param_groups:
            group["lr"] = a.lr * budget.tick()
        picture = draw(sprites[torch.randint(len(sprites), (a.batch,), device=a.device)], Augment())
        with autocast(a.device):
            posterior = model.encode(picture).latent_dist
            back = model.decode(posterior.sample()).sample
        mse = (back.float() - picture).square().mean()
        loss = mse + a.kl * posterior.kl().mean() / (16 * 16 * 4)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        ema.update(model)
        if kept.save(force=budget.over):
            kept.log(step=budget.step, minutes=budget.spent / 60, mse=float(mse), psnr=evaluate())


if __name__ == "__main__":
    main()
