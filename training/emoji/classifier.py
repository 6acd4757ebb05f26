"""Train the emoji classifier, the judge of the samples: 64x64x3 -> class.

    python -m training.emoji.classifier --minutes 12 --work DIR

It sees wider augmentation than the generator and softened pictures, so that neither an unusual place or hue nor the
autoencoder's softness decides its verdict. It never sees a generated picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from omnicache.zoo.classifier import Classifier
from training.common import Budget, Checkpoint, Ema, autocast, device_default
from training.emoji.data import Augment, draw, sheet

SEED = 0
RADIUS = 4  # of the blur kernel, in pixels


def blur(picture: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of pictures ``(n, 3, h, w)``, one ``sigma`` in pixels each, ``(n,)``."""
    n, c, h, w = picture.shape
    at = torch.arange(-RADIUS, RADIUS + 1, device=picture.device)
    kernel = torch.softmax(-0.5 * (at / sigma[:, None]).square(), 1).repeat_interleave(c, 0)
    flat = F.pad(picture, (RADIUS,) * 4, mode="replicate").reshape(1, n * c, h + 2 * RADIUS, w + 2 * RADIUS)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * c)
    return F.conv2d(flat, kernel[:, None, None, :], groups=n * c).view(n, c, h, w)


def soften(picture: torch.Tensor, share: float = 0.6) -> torch.Tensor:
    """Degrade a share of pictures ``(n, 3, 64, 64)`` in [-1, 1] as an autoencoder would: blur, then blotches.

    Blur has a sigma of 0.3 to 1.5 pixels; blotches are noise drawn on 16x16, the latent's grid, up to 0.12 strong.
    """
    n, device = len(picture), picture.device
    soft = blur(picture, 0.3 + 1.2 * torch.rand(n, device=device))
    level = 0.12 * torch.rand(n, 1, 1, 1, device=device)
    blotches = F.interpolate(torch.randn(n, 3, 16, 16, device=device), size=picture.shape[2:], mode="bilinear")
    soft = (soft + level * blotches).clamp(-1, 1)
    return torch.where(torch.rand(n, 1, 1, 1, device=device) < share, soft, picture)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--minutes", type=float, default=12)
    ask.add_argument("--batch", type=int, default=64)
    ask.add_argument("--classes", type=int, default=100)
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    torch.manual_seed(SEED)
    model = Classifier(a.classes).to(a.device)
    sprites = sheet(a.classes).to(a.device)
    # At least ten pictures a class, drawn as the generator's are, by a seed of their own.
    truth = torch.arange(max(1000, a.classes * 10), device=a.device) % a.classes
    g = torch.Generator(a.device).manual_seed(1)
    held_out = torch.cat([draw(sprites[chunk], Augment(), g=g) for chunk in truth.split(100)])
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.99), weight_decay=0.02)
    ema, budget = Ema(model, 0.998), Budget(a.minutes, device=a.device)
    kept = Checkpoint(a.work, "classifier", {"model": model, "opt": opt, "ema": ema, "budget": budget})
    if kept.load():
        torch.manual_seed(SEED + budget.step)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        """Accuracy of the averaged weights on the held-out pictures, as drawn and blurred by one pixel."""
        best = Classifier(a.classes).to(a.device).eval()
        best.load_state_dict(ema.shadow)
        sharp, soft = [], []
        for picture, label in zip(held_out.split(250), truth.split(250), strict=True):
            blurred = blur(picture, torch.ones(len(picture), device=a.device))
            sharp.append(best(picture / 2 + 0.5).argmax(1) == label)
            soft.append(best(blurred / 2 + 0.5).argmax(1) == label)
        return {"accuracy": float(torch.cat(sharp).float().mean()), "blurred": float(torch.cat(soft).float().mean())}

    running = 0.0
    while not budget.over:
        for group in opt.param_groups:
            group["lr"] = a.lr * budget.tick()
        label = torch.randint(a.classes, (a.batch,), device=a.device)
        picture = soften(draw(sprites[label], Augment.classifier()))
        with autocast(a.device):
            logits = model(picture / 2 + 0.5)
        loss = F.cross_entropy(logits.float(), label, label_smoothing=0.05)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        ema.update(model)
        running = float(loss.detach()) if budget.step == 1 else 0.98 * running + 0.02 * float(loss.detach())
        if kept.save(force=budget.over):
            kept.log(step=budget.step, minutes=budget.spent / 60, pictures=budget.step * a.batch, loss=running, **evaluate())


if __name__ == "__main__":
    main()
