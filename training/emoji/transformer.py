"""Train the emoji transformer: ``DiTTransformer2DModel``, 12 blocks, 64 tokens, v-prediction on a cosine schedule.

    python -m training.emoji.transformer --work DIR --minutes 90 [--width 128]

Resumes from DIR. SIGSTOP and SIGCONT pause it; the budget counts training time only.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from training.common import Budget, Checkpoint, Courtesy, Ema, Several, autocast, device_default, grid_png, optimizers, strata

SEED = 0
NULL = 1000  # DiTPipeline's id of "no class"


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def build(width: int) -> DiTTransformer2DModel:
    model = DiTTransformer2DModel(
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=12,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=NULL,
    )
    # adaLN-Zero: every block starts as the identity (DiT, section 3.2); diffusers builds the modules but leaves them random.
    for block in model.transformer_blocks:
        torch.nn.init.zeros_(block.norm1.linear.weight)
        torch.nn.init.zeros_(block.norm1.linear.bias)
        torch.nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
    torch.nn.init.zeros_(model.proj_out_2.weight)
    torch.nn.init.zeros_(model.proj_out_2.bias)
    return model.eval()  # labels are dropped below, once a picture: in train mode each block would drop its own


class Latents:
    """Random access to all shards that exist; looks for new ones every 1,000 batches."""

    def __init__(self, work: Path, device: str):
        self.work, self.device, self.seen, self.calls = work, device, 0, 0
        self._load()

    def _load(self) -> None:
        paths = sorted(self.work.glob("latents-*.pt"))
        if len(paths) == self.seen:
            return
        parts = [torch.load(p, weights_only=True) for p in paths]
        self.mean, self.std, self.label = (torch.cat([p[k] for p in parts]).to(self.device) for k in ("mean", "std", "label"))
        self.seen = len(paths)

    @property
    def scale(self) -> float:
        """1 / standard deviation of the first shard: diffusers' ``scaling_factor``."""
        first = self.mean[:20_000].float().square().mean() + self.std[:20_000].float().square().mean()
        return float(1 / first.sqrt())

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        if self.calls % 1000 == 0:
            self._load()
        i = torch.randint(len(self.label), (n,), device=self.device)
        z = self.mean[i].float()
        return z + self.std[i].float() * torch.randn_like(z), self.label[i]


@torch.no_grad()
def sample(model: DiTTransformer2DModel, label: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Latents ``(n, 4, 16, 16)`` drawn with DDIM and classifier-free guidance."""
    s = scheduler()
    s.set_timesteps(steps)
    z = torch.randn(len(label), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(label.device)
    both = torch.cat([label, torch.full_like(label, NULL)])
    for t in s.timesteps:
        cond, free = model(torch.cat([z, z]), t.expand(len(both)).to(z.device), both).sample.float().chunk(2)
        z = s.step(free + guidance * (cond - free), t, z).prev_sample
    return z


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--minutes", type=float, default=90)
    ask.add_argument("--width", type=int, default=128)
    ask.add_argument("--batch", type=int, default=128)
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--ema", type=float, default=0.9995)
    ask.add_argument("--compile", action="store_true", help="compile the blocks: a minute first, then faster")
    ask.add_argument("--bench", type=int, default=0, help="time this many steps on random latents and stop")
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    torch.manual_seed(SEED)
    model = build(a.width).to(a.device)
    opt = Several(optimizers(model, a.lr, lambda name: "transformer_blocks" in name and "embedding_table" not in name))
    alphas = scheduler().alphas_cumprod.to(a.device)
    ema, budget = Ema(model, a.ema), Budget(a.minutes, device=a.device)
    kept = Checkpoint(a.work, "transformer", {"model": model, "opt": opt, "ema": ema, "budget": budget})
    if not a.bench and kept.load():
        # A restart must not repeat the same noise.
        torch.manual_seed(SEED + budget.step)
    if a.compile:
        for block in model.transformer_blocks:
            block.compile()

    data = None if a.bench else Latents(a.work, a.device)
    scale = 1.0 if data is None else data.scale
    courtesy = Courtesy() if budget.cpu else None
    running, next_picture = 0.0, 600.0 * (1 + int(budget.spent // 600))
    while not budget.over:
        factor = budget.tick()
        if courtesy is not None:
            courtesy.tick()
        if data is None:
            z, label = torch.randn(a.batch, 4, 16, 16), torch.randint(100, (a.batch,))
        else:
            z, label = data.draw(a.batch)
        z = z * scale
        label = torch.where(torch.rand(a.batch, device=a.device) < 0.1, NULL, label)
        t = (1000 * strata(a.batch, a.device)).long()
        signal, noise = (alphas[t] ** 0.5)[:, None, None, None], ((1 - alphas[t]) ** 0.5)[:, None, None, None]
        eps = torch.randn_like(z)
        with autocast(a.device):
            v = model(signal * z + noise * eps, t, label).sample
        loss = (v.float() - (signal * eps - noise * z)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step(a.lr * factor)
        ema.update(model)
        running = loss.item() if running == 0 else 0.99 * running + 0.01 * loss.item()
        if a.bench:
            print(f"{budget.step}: {budget.spent:.2f} s, load {os.getloadavg()[0]:.1f}", flush=True)
            if budget.step >= a.bench:
                return
        elif kept.save(force=budget.over):
            kept.log(step=budget.step, minutes=budget.spent / 60, pictures=budget.step * a.batch, loss=running)
        if data is not None and (budget.spent > next_picture or budget.over):
            next_picture += 600
            snapshot(ema, a, scale)


def snapshot(ema: Ema, a: argparse.Namespace, scale: float) -> None:
    """A grid of 20 classes by the averaged weights, beside the checkpoint."""
    from training.emoji import autoencoder

    model, vae = build(a.width), autoencoder.trained(a.work)
    model.load_state_dict({k: v.cpu() for k, v in ema.shadow.items()})
    z = sample(model, torch.arange(0, 100, 5), guidance=2.0, steps=20, seed=0)
    with torch.no_grad():
        grid_png(vae.decode(z / scale).sample, a.work / "transformer.png")


if __name__ == "__main__":
    main()
