"""Write ``emoji-unet`` as a standard diffusers folder, a ``StableDiffusionPipeline``.

    python -m training.unet.export --work DIR --out zoo/emoji-unet

All weights are the moving averages, in half precision but for the text encoder, which transformers loads as it is stored.
"""

from __future__ import annotations

from diffusers import StableDiffusionPipeline

from training.emoji import autoencoder
from training.emoji.data import names
from training.exports import arguments, check, write, write_about
from training.text.words import write_files
from training.unet import unet

LARGEST_FOLDER = 8_000_000  # bytes


def main() -> None:
    a = arguments().parse_args()
    captions = names()
    net, vae = unet.trained(a.work), autoencoder.trained(a.work)
    pipe = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=net.text,
        tokenizer=net.tokens,
        unet=net.unet.half(),
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    write(pipe, a, "unet")
    write_files(net.tokens, a.out / "tokenizer")
    call = {"prompt": "fox", "guidance_scale": 2.0, "num_inference_steps": 50}
    write_about(a.out, call, {caption: i for i, caption in enumerate(captions)})
    check(pipe, a.out, LARGEST_FOLDER, captions)


if __name__ == "__main__":
    main()
