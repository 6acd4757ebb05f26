"""Write ``emoji-animate`` as a standard diffusers folder, a ``StableVideoDiffusionPipeline``.

    python -m training.animate.export --work DIR --out zoo/emoji-animate

All weights are the moving averages, in half precision but for the image encoder, which transformers loads as it is stored.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import StableVideoDiffusionPipeline
from transformers import CLIPImageProcessor

from training.animate import unet
from training.common import check_sizes, check_weights, copy_logs, grid_png, write_about
from training.emoji import autoencoder
from training.motion.data import PROMPTS, draw, judged, sheet

LARGEST_FOLDER = 8_000_000  # bytes
PARTS = ("unet", "vae", "image_encoder")
EXAMPLE = "lion spinning"


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    a = ask.parse_args()

    net, vae = unet.trained(a.work), autoencoder.trained(a.work)
    for old in (*PARTS, "feature_extractor", "scheduler"):
        shutil.rmtree(a.out / old, ignore_errors=True)  # an earlier export may have had other files
    pipe = StableVideoDiffusionPipeline(
        vae=vae.half(),
        image_encoder=net.vision,
        unet=net.unet.half(),
        scheduler=unet.scheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    pipe.save_pretrained(a.out)
    index = a.out / "model_index.json"  # without torchvision the class has another name, which older versions do not know
    index.write_text(index.read_text().replace("CLIPImageProcessorPil", "CLIPImageProcessor") + "\n")
    clip, _ = draw(sheet(), torch.tensor([PROMPTS.index(EXAMPLE)]), g=torch.Generator().manual_seed(0))
    grid_png(clip[:, 0], a.out / "first.png", columns=1, zoom=1, gap=0)
    call = {"image": "first.png", "height": 64, "width": 64, "motion_bucket_id": unet.BUCKETS[EXAMPLE.split()[1]]}
    write_about(a.out, call | {"max_guidance_scale": 2.0, "num_inference_steps": 25}, judged())
    copy_logs(a.work, a.out, ["unet"])

    back = StableVideoDiffusionPipeline.from_pretrained(str(a.out))
    check_weights(*({part: getattr(p, part) for part in PARTS} for p in (pipe, back)))
    check_sizes(a.out, LARGEST_FOLDER)


if __name__ == "__main__":
    main()
