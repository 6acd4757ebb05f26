"""Write ``emoji-animate`` as a standard diffusers folder, a ``StableVideoDiffusionPipeline``.

    python -m training.animate.export --work DIR --out zoo/emoji-animate

All weights are the moving averages, in half precision but for the image encoder, which transformers loads as it is stored.
"""

from __future__ import annotations

import torch
from diffusers import StableVideoDiffusionPipeline
from transformers import CLIPImageProcessor

from training.animate import unet
from training.common import grid_png
from training.emoji import autoencoder
from training.exports import arguments, check, write, write_about
from training.motion.data import PROMPTS, draw, judged, sheet

LARGEST_FOLDER = 8_000_000  # bytes
EXAMPLE = "lion spinning"


def main() -> None:
    a = arguments().parse_args()
    net, vae = unet.trained(a.work), autoencoder.trained(a.work)
    pipe = StableVideoDiffusionPipeline(
        vae=vae.half(),
        image_encoder=net.vision,
        unet=net.unet.half(),
        scheduler=unet.scheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    write(pipe, a, "unet")
    clip, _ = draw(sheet(), torch.tensor([PROMPTS.index(EXAMPLE)]), g=torch.Generator().manual_seed(0))
    grid_png(clip[:, 0], a.out / "first.png", columns=1, zoom=1, gap=0)
    call = {"image": "first.png", "height": 64, "width": 64, "motion_bucket_id": unet.BUCKETS[EXAMPLE.split()[1]]}
    write_about(a.out, call | {"max_guidance_scale": 2.0, "num_inference_steps": 25}, judged())
    check(pipe, a.out, LARGEST_FOLDER)


if __name__ == "__main__":
    main()
