"""Train ``emoji-motion``: ``LatteTransformer3DModel``, 8 spatial and 8 temporal blocks, 16 frames of 64 tokens, v-prediction.

    python -m training.motion.transformer --work DIR --minutes 100

It resumes from DIR; CONTRIBUTING.md has what comes before and after.

The first 30 % of the time it learns from latents of which each 2x2 were averaged, noise included: a quarter of the tokens, for
places and outlines. Until 75 % of the time it sees only 4 frames of a clip, any 4: frames of one clip are so much alike that more
clips teach more than more frames. The text encoder learns with it. A GPU is used where there is one; give it ``--batch 64 --minutes
20``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import LatteTransformer3DModel
from torch import nn

from training.common import autocast, averaged
from training.emoji import autoencoder
from training.emoji.transformer import Latents, diffuse, scheduler
from training.loop import SEED, Run, arguments, sample
from training.motion.data import PROMPTS
from training.motion.law import FRAMES
from training.motion.words import WIDTH, Words

SIDE, FEW = 16, 4


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

    parts: ClassVar[dict[str, str]] = {"transformer": "transformer", "text_encoder": "words.encoder"}
    """Where parts of the exported pipeline stand in it."""

    def __init__(self, width: int = 96, layers: int = 8):
        super().__init__()
        self.words, self.transformer = Words(), build(width, layers)

    def forward(
        self,
        z: torch.Tensor,
        t: torch.Tensor,
        label: torch.Tensor,
        padded: bool = True,
        frames: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Velocity at latents ``z`` ``(n, 4, f, h, w)`` and timesteps ``t``; ``padded`` as for more than one video, ``frames`` are
        the f that are given, all 16 if left out."""
        words, weight = self.words(label, padded)
        if weight is not None:
            weight = weight.expand(len(z) * z.shape[2], -1, -1)
        model, places = self.transformer, self.transformer.temp_pos_embed
        if frames is not None:
            model.temp_pos_embed = places[:, frames]
        try:
            return model(z, t, words, weight).sample[:, :4]
        finally:
            model.temp_pos_embed = places


def trained(work: Path) -> Net:
    """The averaged weights of a checkpoint, as wide and deep as it says."""
    state = averaged(work, "transformer")
    layers = sum(name.startswith("transformer.transformer_blocks.") and name.endswith("attn1.to_q.weight") for name in state)
    net = Net(state["transformer.scale_shift_table"].shape[1], layers)
    net.load_state_dict(state)
    return net.eval()


def main() -> None:
    ask = arguments("clips", batch=8, width=96, coarse=0.3)
    ask.add_argument("--layers", type=int, default=8)
    ask.add_argument("--few", type=float, default=0.75, help="share of the time with 4 frames of each clip, twice as many clips")
    a = ask.parse_args()
    torch.manual_seed(SEED)
    net = Net(a.width, a.layers).to(a.device)
    run, data = Run(a, "transformer", net), Latents(a.work, a.device)
    alphas, scale = scheduler().alphas_cumprod.to(a.device), autoencoder.trained(a.work).config.scaling_factor
    for done in run:
        coarse, few = done < a.coarse, done < a.few
        n = a.batch * (2 if coarse else 1) * (2 if few else 1)
        z, label = data.draw(n)
        label = torch.where(torch.rand(n, device=a.device) < 0.1, len(PROMPTS), label)
        frames = torch.randperm(FRAMES, device=a.device)[:FEW].sort().values if few else None
        if few:
            z = z[:, frames]
        noised, t, velocity = diffuse(z.transpose(1, 2) * scale, alphas)
        if coarse:
            noised, velocity = (2 * F.avg_pool3d(x, (1, 2, 2)) for x in (noised, velocity))
        with autocast(a.device):
            found = net(noised, t, label, padded=bool(torch.rand(()) < 0.5), frames=frames)
        if run.update((found.float() - velocity).square().mean(), n, coarse=coarse, few=few):
            z = sample(trained(a.work), scheduler(), torch.tensor([0, 5, 22, 39]), len(PROMPTS), 4, FRAMES, SIDE, SIDE)
            run.show(z.transpose(1, 2).flatten(0, 1) / scale, columns=FRAMES, zoom=1)


if __name__ == "__main__":
    main()
