"""Write ``emoji-animate`` as a standard diffusers folder, a ``StableVideoDiffusionPipeline``.

    python -m training.animate.export --work DIR --out zoo/emoji-animate

All weights are the moving averages, in half precision but for the image encoder, which transformers loads as it is stored.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableVideoDiffusionPipeline
from transformers import CLIPImageProcessor

from training.animate import unet
from training.common import save_grid
from training.emoji import autoencoder
from training.exports import arguments, check, write, write_about
from training.motion.data import PROMPTS, draw, judged, sheet
from training.motion.law import FRAMES

LARGEST_FOLDER = 8_000_000  # bytes
EXAMPLE = "lion spinning"


def write_firsts(out: Path) -> dict[str, dict[str, Any]]:
    """A first frame for each prompt, never trained on, and the arguments that ask for it."""
    shutil.rmtree(out / "firsts", ignore_errors=True)
    (out / "firsts").mkdir(parents=True)
    clips, _ = draw(sheet(), torch.arange(len(PROMPTS)), g=torch.Generator().manual_seed(0))
    inputs = {}
    for prompt, clip in zip(PROMPTS, clips, strict=True):
        file = f"firsts/{prompt.replace(' ', '-')}.png"
        save_grid(clip[:1], out / file, columns=1, zoom=1, gap=0)
        inputs[prompt] = {"image": file, "motion_bucket_id": unet.BUCKETS[prompt.split()[1]]}
    return inputs


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
    inputs = write_firsts(a.out)
    call = {**inputs[EXAMPLE], "height": 64, "width": 64, "max_guidance_scale": 2.0, "num_inference_steps": 25}
    write_about(a.out, call, judged(), frames=FRAMES, inputs=inputs)
    check(pipe, a.out, LARGEST_FOLDER)


if __name__ == "__main__":
    main()
