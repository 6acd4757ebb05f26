"""Write ``emoji-motion`` as a standard diffusers folder, a ``LattePipeline``.

    python -m training.motion.export --work DIR --out zoo/emoji-motion

All weights are the moving averages, in half precision but for the text encoder, which transformers loads as it is stored.
"""

from __future__ import annotations

from diffusers import LattePipeline

from training.emoji import autoencoder
from training.emoji.transformer import scheduler
from training.exports import arguments, check, write, write_about
from training.motion import transformer
from training.motion.data import PROMPTS, judged
from training.motion.law import FRAMES

LARGEST_FOLDER = 10_000_000  # bytes


def main() -> None:
    a = arguments().parse_args()
    net, vae = transformer.trained(a.work), autoencoder.trained(a.work)
    pipe = LattePipeline(
        tokenizer=net.words.tokens,
        text_encoder=net.words.encoder,
        vae=vae.half(),
        transformer=net.transformer.half(),
        scheduler=scheduler(),
    )
    write(pipe, a, "transformer")
    call = {"prompt": "lion spinning", "height": 64, "width": 64, "guidance_scale": 2.0, "num_inference_steps": 50}
    write_about(a.out, call | {"clean_caption": False}, judged(), frames=FRAMES)
    check(pipe, a.out, LARGEST_FOLDER, PROMPTS)


if __name__ == "__main__":
    main()
