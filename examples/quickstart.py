"""Draw a fox twice, without and with a cache, and say how much was saved and how alike the pictures are."""

import torch

import omnicache
from omnicache import zoo
from omnicache.measure import psnr

pipe = zoo.load("emoji")  # or any diffusers pipeline, with a prompt in place of the class below


def draw() -> torch.Tensor:
    seed = torch.Generator().manual_seed(0)
    return pipe(pipe.get_label_ids(["fox"]), num_inference_steps=50, guidance_scale=2.0, generator=seed, output_type="pt").images


plain = draw()
with omnicache.cache(pipe, "taylorseer", interval=4) as run:
    fast = draw()
print(run)
print(f"{psnr(fast, plain).item():.1f} dB PSNR to the uncached picture")
