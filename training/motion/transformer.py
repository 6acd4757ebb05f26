"""Train ``emoji-motion``: ``LatteTransformer3DModel``, 8 spatial and 8 temporal blocks, 16 frames of 64 tokens, v-prediction.

The whole sequence, from the repository's root; each command resumes from DIR, and pauses and restarts do not count:

    python -m training.motion.latents --work DIR --shards 5
    python -m training.motion.transformer --work DIR --minutes 100
    python -m training.motion.export --work DIR --out zoo/emoji-motion
    python -m training.motion.card --out zoo/emoji-motion --hardware "one CPU core"

The first 30 % of the time it learns from latents of which each 2x2 were averaged, noise included: a quarter of the tokens, for
places and outlines. The text encoder learns with it. A GPU is used where there is one; give it ``--batch 64 --minutes 20``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import LatteTransformer3DModel
from torch import nn

from training.common import Budget, Checkpoint, Ema, Several, autocast, averaged, device_default, grid_png, optimizers, strata
from training.emoji import autoencoder
from training.emoji.transformer import Latents, scheduler
from training.motion.data import PROMPTS
from training.motion.law import FRAMES
from training.motion.words import WIDTH, Words

SEED = 0
SIDE = 16


def build(width: int = 96, layers: int = 8) -> LatteTransformer3DModel:
    model = LatteTransformer3DModel(
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=4,
        out_channels=8,  # LattePipeline drops the second half, which in Latte is a learned variance; here it is always zero
        num_layers=layers,
        cross_attention_dim=width,
        attention_bias=True,
        sample_size=SIDE,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=WIDTH,
        video_length=FRAMES,
    )
    # Every block starts as the identity (DiT, section 3.2): gates, and what the words add, are zero.
    nn.init.zeros_(model.adaln_single.linear.weight)
    nn.init.zeros_(model.adaln_single.linear.bias)
    for block in [*model.transformer_blocks, *model.temporal_transformer_blocks]:
        nn.init.zeros_(block.scale_shift_table)
        if block.attn2 is not None:
            nn.init.zeros_(block.attn2.to_out[0].weight)
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    return model


class Net(nn.Module):
    """What learns: the text encoder and the transformer."""

    def __init__(self, width: int = 96, layers: int = 8):
        super().__init__()
        self.words, self.transformer = Words(), build(width, layers)

    def forward(self, z: torch.Tensor, t: torch.Tensor, label: torch.Tensor, padded: bool = True) -> torch.Tensor:
        """Velocity at latents ``z`` ``(n, 4, 16, h, w)`` and timesteps ``t``; ``padded`` as for more than one video."""
        words, weight = self.words(label, padded)
        if weight is not None:
            weight = weight.expand(len(z) * FRAMES, -1, -1)
        return self.transformer(z, t, words, weight).sample[:, :4]


@torch.no_grad()
def sample(net: Net, label: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Latents ``(n, 4, 16, 16, 16)`` drawn with DDIM and classifier-free guidance."""
    s = scheduler()
    s.set_timesteps(steps)
    z = torch.randn(len(label), 4, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).to(label.device)
    both = torch.cat([label, torch.full_like(label, len(PROMPTS))])
    for t in s.timesteps:
        cond, free = net(torch.cat([z, z]), t.expand(len(both)).to(z.device), both).float().chunk(2)
        z = s.step(free + guidance * (cond - free), t, z).prev_sample
    return z


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--minutes", type=float, default=100)
    ask.add_argument("--width", type=int, default=96)
    ask.add_argument("--layers", type=int, default=8)
    ask.add_argument("--batch", type=int, default=8, help="clips a step; twice as many while they are coarse")
    ask.add_argument("--coarse", type=float, default=0.3, help="share of the time with a quarter of the tokens")
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--ema", type=float, default=0.999)
    ask.add_argument("--compile", action="store_true", help="compile the blocks: two minutes first, then a fifth faster")
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    torch.manual_seed(SEED)
    net = Net(a.width, a.layers).to(a.device)
    opt = Several(optimizers(net, a.lr, lambda name: "transformer_blocks" in name and "table" not in name))
    alphas = scheduler().alphas_cumprod.to(a.device)
    ema, budget = Ema(net, a.ema), Budget(a.minutes, device=a.device)
    kept = Checkpoint(a.work, "transformer", {"model": net, "opt": opt, "ema": ema, "budget": budget})
    if kept.load():
        torch.manual_seed(SEED + budget.step)  # a restart must not repeat the same noise
    if a.compile:
        for block in [*net.transformer.transformer_blocks, *net.transformer.temporal_transformer_blocks]:
            block.compile()
    data, scale = Latents(a.work, a.device), autoencoder.trained(a.work).config.scaling_factor
    running, next_picture = 0.0, 600.0 * (1 + int(budget.spent // 600))
    while not budget.over:
        factor = budget.tick()
        coarse = budget.done < a.coarse
        n = a.batch * (2 if coarse else 1)
        z, label = data.draw(n)
        z = z.transpose(1, 2) * scale
        label = torch.where(torch.rand(n, device=a.device) < 0.1, len(PROMPTS), label)
        t = (1000 * strata(n, a.device)).long()
        signal, noise = (alphas[t] ** 0.5).view(-1, 1, 1, 1, 1), ((1 - alphas[t]) ** 0.5).view(-1, 1, 1, 1, 1)
        eps = torch.randn_like(z)
        noised, velocity = signal * z + noise * eps, signal * eps - noise * z
        if coarse:
            noised, velocity = (2 * F.avg_pool3d(x, (1, 2, 2)) for x in (noised, velocity))
        with autocast(a.device):
            found = net(noised, t, label, padded=bool(torch.rand(()) < 0.5))
        loss = (found.float() - velocity).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step(a.lr * factor)
        ema.update(net)
        budget.seen += n
        running = loss.item() if running == 0 else 0.99 * running + 0.01 * loss.item()
        if budget.step % 20 == 0:
            print(f"{budget.step}: {budget.spent / 60:.1f} minutes, {running:.4f}, load {os.getloadavg()[0]:.1f}", flush=True)
        if kept.save(force=budget.over):
            kept.log(step=budget.step, minutes=budget.spent / 60, coarse=coarse, clips=budget.seen, loss=running)
        if budget.spent > next_picture or budget.over:
            next_picture += 600
            snapshot(a, scale)


def snapshot(a: argparse.Namespace, scale: float) -> None:
    """Four videos by the averaged weights, frame by frame, beside the checkpoint."""
    net, vae = trained(a.work), autoencoder.trained(a.work)
    z = sample(net, torch.tensor([0, 5, 22, 39]), guidance=2.0, steps=20, seed=0)
    with torch.no_grad():
        grid_png(vae.decode(z.transpose(1, 2).flatten(0, 1) / scale).sample, a.work / "transformer.png", columns=FRAMES, zoom=1)


def trained(work: Path) -> Net:
    """The averaged weights of a checkpoint, as wide and deep as it says."""
    state = averaged(work, "transformer")
    layers = sum(name.startswith("transformer.transformer_blocks.") and name.endswith("attn1.to_q.weight") for name in state)
    net = Net(state["transformer.scale_shift_table"].shape[1], layers)
    net.load_state_dict(state)
    return net.eval()


if __name__ == "__main__":
    main()
