"""Train ``emoji-unet``: ``UNet2DConditionModel`` with cross-attention to captions, v-prediction, as Stable Diffusion 2 is built.

    python -m training.unet.unet --work DIR --minutes 60

It resumes from DIR; CONTRIBUTING.md has what comes before and after. The pictures are those of ``emoji-text``, whose DIR will do.
The text encoder learns with the U-Net. A GPU is used where there is one; give it ``--batch 256 --minutes 20``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from training.common import autocast, averaged
from training.emoji import autoencoder, transformer
from training.emoji.data import names
from training.emoji.transformer import Latents, diffuse
from training.loop import SEED, Run, arguments, sample
from training.text.words import WIDTH, encoder, ids, tokenizer

SIDE = 16


def scheduler() -> DDIMScheduler:
    """That of ``emoji``; the pipeline wants an offset, which with trailing timesteps has no effect."""
    return DDIMScheduler.from_config(transformer.scheduler().config, steps_offset=1)


def build() -> UNet2DConditionModel:
    model = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # which diffusers takes for the number of heads
        norm_num_groups=8,
        use_linear_projection=True,
    )
    nn.init.zeros_(model.conv_out.weight)
    nn.init.zeros_(model.conv_out.bias)
    return model


class Net(nn.Module):
    """What learns: the text encoder and the U-Net."""

    parts: ClassVar[dict[str, str]] = {"unet": "unet", "text_encoder": "text"}
    """Where parts of the exported pipeline stand in it."""

    def __init__(self):
        super().__init__()
        captions = names()
        self.tokens, self.none = tokenizer(captions), len(captions)
        self.text, self.unet = encoder(self.tokens, CLIPTextModel), build()
        self.register_buffer("ids", ids(self.tokens, [*captions, ""]), persistent=False)  # the last is no caption

    def forward(self, z: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Velocity ``(n, 4, 16, 16)`` at latents ``z`` and timesteps ``t``."""
        return self.unet(z, t, self.text(self.ids).last_hidden_state[label]).sample


def trained(work: Path) -> Net:
    """The averaged weights of a checkpoint."""
    net = Net()
    net.load_state_dict(averaged(work, "unet"))
    return net.eval()


def main() -> None:
    a = arguments("pictures", batch=32).parse_args()
    torch.manual_seed(SEED)
    net = Net().to(a.device)
    run, data = Run(a, "unet", net), Latents(a.work, a.device)
    alphas, scale = scheduler().alphas_cumprod.to(a.device), autoencoder.trained(a.work).config.scaling_factor
    for _ in run:
        z, label = data.draw(a.batch)
        label = torch.where(torch.rand(a.batch, device=a.device) < 0.1, net.none, label)
        noised, t, velocity = diffuse(z * scale, alphas)
        with autocast(a.device):
            found = net(noised, t, label)
        if run.update((found.float() - velocity).square().mean(), a.batch):
            z = sample(trained(a.work), scheduler(), torch.arange(0, 100, 5), net.none, 4, SIDE, SIDE)
            run.show(z / scale)


if __name__ == "__main__":
    main()
