"""Train ``emoji-text``: ``SD3Transformer2DModel``, 12 two-stream blocks on 256 tokens, flow matching, captions = CLDR names.

    python -m training.text.transformer --work DIR --minutes 100

It resumes from DIR; CONTRIBUTING.md has what comes before and after.

The first 30 % of the time it learns from latents of which each 2x2 were averaged, noise included: a quarter of the tokens,
for the outlines. The text encoders learn with it. A GPU is used where there is one; give it ``--batch 256 --minutes 20``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import nn

from training.common import autocast, averaged, strata
from training.emoji import autoencoder
from training.emoji.data import names
from training.emoji.transformer import Latents
from training.loop import SEED, Run, arguments, sample
from training.text.words import WIDTH, Words, ids, tokenizer

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

    parts: ClassVar[dict[str, str]] = {
        "transformer": "transformer",
        "text_encoder": "words.first",
        "text_encoder_2": "words.second",
    }
    """Where parts of the exported pipeline stand in it."""

    def __init__(self, width: int = 96):
        super().__init__()
        captions = names()
        self.tokens, self.none = tokenizer(captions), len(captions)
        self.words, self.transformer = Words(self.tokens), build(width)
        self.transformer.set_attn_processor(Weighted())
        self.register_buffer("ids", ids(self.tokens, [*captions, ""]), persistent=False)  # the last is no caption

    def forward(self, z: torch.Tensor, t: torch.Tensor, label: torch.Tensor, padding: float = PADDING) -> torch.Tensor:
        """Velocity at latents ``z`` and timesteps ``t``; ``padding`` zero tokens are one that counts as many times."""
        words, whole = self.words(self.ids)
        words = F.pad(words, (0, 0, 0, 1))[label]
        weight = torch.zeros(1, 1, 1, z[0, 0].numel() + words.shape[1], device=z.device)
        weight[..., -1] = math.log(padding)
        return self.transformer(z, words, whole[label], t, joint_attention_kwargs={"attention_mask": weight}).sample


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


def trained(work: Path) -> Net:
    """The averaged weights of a checkpoint, as wide as it says."""
    state = averaged(work, "transformer")
    net = Net(state["transformer.context_embedder.weight"].shape[0])
    net.load_state_dict(state)
    return net.eval()


def main() -> None:
    a = arguments("pictures", batch=32, width=96, coarse=0.3).parse_args()
    torch.manual_seed(SEED)
    net = Net(a.width).to(a.device)
    run, data = Run(a, "transformer", net), Latents(a.work, a.device)
    scale = autoencoder.trained(a.work).config.scaling_factor
    for done in run:
        coarse = done < a.coarse
        coarse_positions(net.transformer, coarse)
        n = a.batch * (2 if coarse else 1)
        z, label = data.draw(n)
        z = z * scale
        label = torch.where(torch.rand(n, device=a.device) < 0.1, net.none, label)
        t = torch.special.ndtri(strata(n, a.device).clamp(1e-4, 1 - 1e-4)).sigmoid()  # logit-normal (SD3, section 3.1)
        at, eps = t[:, None, None, None], torch.randn_like(z)
        noised, velocity = (1 - at) * z + at * eps, eps - z
        if coarse:
            noised, velocity = 2 * F.avg_pool2d(noised, 2), 2 * F.avg_pool2d(velocity, 2)
        padding = PADDING ** min(max(1.5 * float(torch.rand(())) - 0.25, 0), 1)
        with autocast(a.device):
            found = net(noised, 1000 * t, label, padding)
        if run.update((found.float() - velocity).square().mean(), n, coarse=coarse):
            run.show(sample(trained(a.work), scheduler(), torch.arange(0, 100, 5), net.none, 4, SIDE, SIDE) / scale)


if __name__ == "__main__":
    main()
