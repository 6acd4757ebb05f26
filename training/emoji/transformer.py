"""Train the emoji transformer: ``DiTTransformer2DModel``, 12 blocks, 64 tokens, v-prediction on a cosine schedule.

    python -m training.emoji.transformer --work DIR --minutes 90 [--width 128]

Resumes from DIR. SIGSTOP and SIGCONT pause it; the budget counts training time only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from training.common import Courtesy, autocast, averaged, strata
from training.loop import SEED, Run, arguments, sample

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

    def pick(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents at random, and which."""
        i = torch.randint(len(self.label), (n,), device=self.device)
        z = self.mean[i].float()
        return z + self.std[i].float() * torch.randn_like(z), i

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and their labels."""
        self.calls += 1
        if self.calls % 1000 == 0:
            self._load()
        z, i = self.pick(n)
        return z, self.label[i]


def trained(work: Path) -> DiTTransformer2DModel:
    """The averaged weights of a checkpoint, as wide as it says."""
    state = averaged(work, "transformer")
    model = build(state["transformer_blocks.0.attn1.to_q.weight"].shape[0])
    model.load_state_dict(state)
    return model


def diffuse(z: torch.Tensor, alphas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents with noise of any strength, their timesteps, and their velocity, which is to be learned."""
    t = (1000 * strata(len(z), z.device)).long()
    signal, noise = (share[t].view(-1, *[1] * (z.ndim - 1)) for share in (alphas**0.5, (1 - alphas) ** 0.5))
    eps = torch.randn_like(z)
    return signal * z + noise * eps, t, signal * eps - noise * z


def main() -> None:
    a = arguments("pictures", batch=128, width=128, minutes=90, ema=0.9995).parse_args()
    torch.manual_seed(SEED)
    model = build(a.width).to(a.device)
    run, data = Run(a, "transformer", model), Latents(a.work, a.device)
    alphas, scale = scheduler().alphas_cumprod.to(a.device), data.scale
    courtesy = Courtesy()
    for _ in run:
        if run.budget.cpu:
            courtesy.tick()
        z, label = data.draw(a.batch)
        label = torch.where(torch.rand(a.batch, device=a.device) < 0.1, NULL, label)
        noised, t, velocity = diffuse(z * scale, alphas)
        with autocast(a.device):
            found = model(noised, t, label).sample
        if run.update((found.float() - velocity).square().mean(), a.batch):
            best = trained(a.work)
            z = sample(lambda *of: best(*of).sample, scheduler(), torch.arange(0, 100, 5), NULL, 4, 16, 16)
            run.show(z / scale)


if __name__ == "__main__":
    main()
