"""Train ``emoji-text``: ``SD3Transformer2DModel``, 12 two-stream blocks on 256 tokens, flow matching, captions = CLDR names.

The whole sequence, from the repository's root; each command resumes from DIR, and pauses and restarts do not count:

    python -m training.emoji.latents --work DIR --shards 3 --size 10000
    python -m training.text.transformer --work DIR --minutes 100
    python -m training.text.export --work DIR --out zoo/emoji-text
    python -m training.text.card --out zoo/emoji-text --hardware "one CPU core"

The first 30 % of the time it learns from latents of which each 2x2 were averaged, noise included: a quarter of the tokens,
for the outlines. The text encoders learn with it. A GPU is used where there is one; give it ``--batch 256 --minutes 20``.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import nn

from training.common import Budget, Checkpoint, Ema, Several, autocast, averaged, device_default, grid_png, optimizers, strata
from training.emoji import autoencoder
from training.emoji.data import emoji_list
from training.emoji.transformer import Latents
from training.text.words import WIDTH, Words, ids, tokenizer

SEED = 0
SIDE = 16  # of the latents, in tokens
PADDING = 256  # tokens that StableDiffusion3Pipeline appends by default where there is no T5: all zero, all alike


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def build(width: int = 96) -> SD3Transformer2DModel:
    model = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=12,
        attention_head_dim=32,
        num_attention_heads=width // 32,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=SIDE,
    )
    # adaLN-Zero: every block starts as the identity (DiT, section 3.2); diffusers builds the modules but leaves them random.
    norms = [norm for block in model.transformer_blocks for norm in (block.norm1, block.norm1_context)]
    for linear in [*(norm.linear for norm in norms), model.norm_out.linear, model.proj_out]:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return model


class Net(nn.Module):
    """What learns: the text encoders and the transformer."""

    def __init__(self, captions: list[str], width: int = 96):
        super().__init__()
        self.tokens = tokenizer(captions)
        self.words, self.transformer = Words(self.tokens), build(width)
        self.register_buffer("ids", ids(self.tokens, [*captions, ""]), persistent=False)  # the last is no caption

    def forward(self, z: torch.Tensor, t: torch.Tensor, label: torch.Tensor, padding: float = PADDING) -> torch.Tensor:
        """Velocity at latents ``z`` and times ``t`` in [0, 1]; ``padding`` zero tokens are one that counts as many times."""
        words, whole = self.words(self.ids)
        words = F.pad(words, (0, 0, 0, 1))[label]
        weight = torch.zeros(1, 1, 1, z[0, 0].numel() + words.shape[1], device=z.device)
        weight[..., -1] = math.log(padding)
        return self.transformer(z, words, whole[label], 1000 * t, joint_attention_kwargs={"attention_mask": weight}).sample


class Weighted(JointAttnProcessor2_0):
    """diffusers' processor with the mask that it ignores: the scores of one token stand for those of many alike."""

    def __call__(self, attn: Attention, hidden_states, encoder_hidden_states=None, attention_mask=None, *args, **kwargs):
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        pairs = ((attn.to_q, attn.add_q_proj), (attn.to_k, attn.add_k_proj), (attn.to_v, attn.add_v_proj))
        q, k, v = (torch.cat([heads(image(hidden_states)), heads(text(encoder_hidden_states))], 2) for image, text in pairs)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask.to(q.dtype))
        picture, caption = mixed.transpose(1, 2).flatten(2).split([hidden_states.shape[1], encoder_hidden_states.shape[1]], 1)
        return attn.to_out[0](picture), caption if attn.context_pre_only else attn.to_add_out(caption)


def coarse_positions(model: SD3Transformer2DModel, on: bool) -> None:
    """Positions for a grid of half the side, each the mean of four; or diffusers' own again."""
    embed = model.pos_embed
    embed.__dict__.pop("cropped_pos_embed", None)
    if on:
        table = embed.pos_embed.reshape(1, SIDE, SIDE, -1).permute(0, 3, 1, 2)
        half = F.avg_pool2d(table, 2).flatten(2).transpose(1, 2)
        embed.cropped_pos_embed = lambda height, width: half


@torch.no_grad()
def sample(net: Net, label: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Latents ``(n, 4, 16, 16)`` drawn with Euler's method and classifier-free guidance."""
    s = scheduler()
    s.set_timesteps(steps)
    z = torch.randn(len(label), 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).to(label.device)
    both = torch.cat([label, torch.full_like(label, len(net.ids) - 1)])
    for t in s.timesteps:
        cond, free = net(torch.cat([z, z]), (t / 1000).expand(len(both)).to(z.device), both).float().chunk(2)
        z = s.step(free + guidance * (cond - free), t, z).prev_sample
    return z


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--minutes", type=float, default=100)
    ask.add_argument("--width", type=int, default=96)
    ask.add_argument("--batch", type=int, default=32, help="pictures a step; twice as many while they are coarse")
    ask.add_argument("--coarse", type=float, default=0.3, help="share of the time with a quarter of the tokens")
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--ema", type=float, default=0.999)
    ask.add_argument("--compile", action="store_true", help="compile the blocks: two minutes first, then a fifth faster")
    ask.add_argument("--device", default=device_default())
    a = ask.parse_args()

    torch.manual_seed(SEED)
    captions = [name for _, name in emoji_list(100)]
    net = Net(captions, a.width).to(a.device)
    net.transformer.set_attn_processor(Weighted())
    opt = Several(optimizers(net, a.lr, lambda name: "transformer_blocks" in name))
    ema, budget = Ema(net, a.ema), Budget(a.minutes, device=a.device)
    kept = Checkpoint(a.work, "transformer", {"model": net, "opt": opt, "ema": ema, "budget": budget})
    if kept.load():
        torch.manual_seed(SEED + budget.step)  # a restart must not repeat the same noise
    if a.compile:
        for block in net.transformer.transformer_blocks:
            block.compile()
    data, scale = Latents(a.work, a.device), autoencoder.trained(a.work).config.scaling_factor
    running, next_picture = 0.0, 600.0 * (1 + int(budget.spent // 600))
    while not budget.over:
        factor = budget.tick()
        coarse = budget.done < a.coarse
        coarse_positions(net.transformer, coarse)
        n = a.batch * (2 if coarse else 1)
        z, label = data.draw(n)
        z = z * scale
        label = torch.where(torch.rand(n, device=a.device) < 0.1, len(captions), label)
        t = torch.special.ndtri(strata(n, a.device).clamp(1e-4, 1 - 1e-4)).sigmoid()  # logit-normal (SD3, section 3.1)
        at, eps = t[:, None, None, None], torch.randn_like(z)
        noised, velocity = (1 - at) * z + at * eps, eps - z
        if coarse:
            noised, velocity = 2 * F.avg_pool2d(noised, 2), 2 * F.avg_pool2d(velocity, 2)
        padding = PADDING ** min(max(1.5 * float(torch.rand(())) - 0.25, 0), 1)
        with autocast(a.device):
            found = net(noised, t, label, padding)
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
            kept.log(step=budget.step, minutes=budget.spent / 60, coarse=coarse, pictures=budget.seen, loss=running)
        if budget.spent > next_picture or budget.over:
            next_picture += 600
            snapshot(a, captions, scale)


def snapshot(a: argparse.Namespace, captions: list[str], scale: float) -> None:
    """A grid of 20 captions by the averaged weights, beside the checkpoint."""
    net, vae = trained(a.work, captions), autoencoder.trained(a.work)
    z = sample(net, torch.arange(0, 100, 5), guidance=2.0, steps=20, seed=0)
    with torch.no_grad():
        grid_png(vae.decode(z / scale).sample, a.work / "transformer.png")


def trained(work: Path, captions: list[str]) -> Net:
    """The averaged weights of a checkpoint, as wide as it says."""
    state = averaged(work, "transformer")
    net = Net(captions, state["transformer.context_embedder.weight"].shape[0])
    net.transformer.set_attn_processor(Weighted())
    net.load_state_dict(state)
    return net.eval()


if __name__ == "__main__":
    main()
