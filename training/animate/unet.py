"""Train ``emoji-animate``: ``UNetSpatioTemporalConditionModel``, a first frame to 16, v-prediction over continuous noise as in SVD.

    python -m training.animate.unet --work DIR --minutes 100

It resumes from DIR; CONTRIBUTING.md has what comes before and after. The clips are those of ``emoji-motion``, whose DIR will do.

How the thing in the first frame moves is told by ``motion_bucket_id``. The image encoder learns with the U-Net. A GPU is used
where there is one; give it ``--batch 64 --minutes 20``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from training.common import autocast, averaged, strata
from training.emoji import autoencoder
from training.emoji.transformer import Latents
from training.loop import SEED, Run, arguments
from training.motion.latents import NOISE
from training.motion.law import FRAMES, MOTIONS

SIDE, VIEW, WIDTH = 16, 224, 32
BUCKETS = {"moving": 32, "spinning": 64, "growing": 96, "bouncing": 127}
FPS = 7  # the pipeline's default


def scheduler() -> EulerDiscreteScheduler:
    """SVD's, but from a noise of 80: its 700 is for larger pictures."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=80.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def build() -> UNetSpatioTemporalConditionModel:
    model = UNetSpatioTemporalConditionModel(
        sample_size=SIDE,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=(32, 64),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        num_attention_heads=(1, 2),
        num_frames=FRAMES,
    )
    nn.init.zeros_(model.conv_out.weight)
    nn.init.zeros_(model.conv_out.bias)
    return model


def vision() -> CLIPVisionModelWithProjection:
    """One layer over 49 patches: the pipeline shows it the first frame at 224x224."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=VIEW,
            patch_size=32,
        )
    )


class Net(nn.Module):
    """What learns: the image encoder and the U-Net."""

    parts: ClassVar[dict[str, str]] = {"unet": "unet", "image_encoder": "vision"}
    """Where parts of the exported pipeline stand in it."""

    def __init__(self):
        super().__init__()
        self.vision, self.unet = vision(), build()
        look = CLIPImageProcessor()
        self.register_buffer("middle", torch.tensor(look.image_mean)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(look.image_std)[:, None, None], persistent=False)
        self.register_buffer("buckets", torch.tensor([BUCKETS[motion] for motion in MOTIONS]).float(), persistent=False)

    def see(self, picture: torch.Tensor) -> torch.Tensor:
        """Embeddings ``(n, 1, 32)`` of first frames ``(n, 3, h, w)`` in [0, 1], as the pipeline makes them."""
        view = F.interpolate(picture, size=(VIEW, VIEW), mode="bicubic", align_corners=True)
        return self.vision((view - self.middle) / self.spread).image_embeds[:, None]

    def forward(
        self,
        z: torch.Tensor,
        sigma: torch.Tensor,
        picture: torch.Tensor,
        first: torch.Tensor,
        motion: torch.Tensor,
        keep: torch.Tensor,
    ) -> torch.Tensor:
        """Velocity at latents ``z`` ``(n, 16, 4, h, w)`` of unit size and noise ``sigma`` ``(n,)``.

        The first frame is given as a picture and as latents; where ``keep`` is zero, none is.
        """
        seen, given = self.see(picture) * keep[:, None, None], first * keep[:, None, None, None]
        told = torch.stack([torch.full_like(sigma, FPS), self.buckets[motion], torch.full_like(sigma, NOISE)], 1)
        x = torch.cat([z, given[:, None].expand(-1, FRAMES, -1, -1, -1)], 2)
        return self.unet(x, 0.25 * sigma.log(), seen, told).sample


class Clips(Latents):
    """Random access to all clips of DIR and to their first frames."""

    def __init__(self, work: Path, device: str):
        super().__init__(work, device)
        firsts = [torch.load(path, weights_only=True) for path in sorted(work.glob("firsts-*.pt"))]
        self.picture, self.latent = (torch.cat([f[k] for f in firsts]).to(device) for k in ("picture", "latent"))

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents ``(n, 16, 4, 16, 16)``, first frames as pictures in [0, 1] and as latents, motions."""
        z, i = self.pick(n)
        return z, self.picture[i].float() / 255, self.latent[i].float(), self.label[i] % len(MOTIONS)


@torch.no_grad()
def sample(net: Net, clips: Clips, chosen: torch.Tensor) -> torch.Tensor:
    """Latents ``(n, 16, 4, 16, 16)`` for the first frames of clips, in 20 of Euler's steps with guidance from 1 to 2."""
    s = scheduler()
    s.set_timesteps(20)
    picture, first, motion = clips.picture[chosen].float() / 255, clips.latent[chosen].float(), clips.label[chosen] % len(MOTIONS)
    z = torch.randn(len(chosen), FRAMES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * s.init_noise_sigma
    guidance = torch.linspace(1, 2, FRAMES)[:, None, None, None]
    for i, t in enumerate(s.timesteps):
        x, sigma = s.scale_model_input(z, t), s.sigmas[i].expand(len(z))
        cond, free = (net(x, sigma, picture, first, motion, torch.full_like(motion, on)).float() for on in (1, 0))
        z = s.step(free + guidance * (cond - free), t, z).prev_sample
    return z


def trained(work: Path) -> Net:
    """The averaged weights of a checkpoint."""
    net = Net()
    net.load_state_dict(averaged(work, "unet"))
    return net.eval()


def main() -> None:
    a = arguments("clips", batch=8).parse_args()
    torch.manual_seed(SEED)
    net = Net().to(a.device)
    run, data = Run(a, "unet", net), Clips(a.work, a.device)
    scale = autoencoder.trained(a.work).config.scaling_factor
    for _ in run:
        z, picture, first, motion = data.draw(a.batch)
        sigma = (0.5 + 1.5 * torch.special.ndtri(strata(a.batch, a.device).clamp(1e-4, 1 - 1e-4))).exp()
        signal = (1 / (sigma.square() + 1).sqrt()).view(-1, 1, 1, 1, 1)
        noise, eps, z = sigma.view(-1, 1, 1, 1, 1) * signal, torch.randn_like(z), z * scale
        keep = (torch.rand(a.batch, device=a.device) > 0.1).float()
        with autocast(a.device):
            found = net(signal * z + noise * eps, sigma, picture, first, motion, keep)
        if run.update((found.float() - (signal * eps - noise * z)).square().mean(), a.batch):
            z = sample(trained(a.work), Clips(a.work, "cpu"), torch.tensor([0, 5, 10, 11]))
            run.show(z.flatten(0, 1) / scale, columns=FRAMES, zoom=1)


if __name__ == "__main__":
    main()
