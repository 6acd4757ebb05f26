"""Write ``emoji-text`` as a standard diffusers folder, a ``StableDiffusion3Pipeline`` whose T5 is silent.

    python -m training.text.export --work DIR --out zoo/emoji-text

All weights are the moving averages, in half precision but for the text encoders, which transformers loads as they are stored.
"""

from __future__ import annotations

from diffusers import StableDiffusion3Pipeline

from training.emoji import autoencoder
from training.emoji.data import names
from training.exports import arguments, check, write, write_about
from training.text import transformer
from training.text.words import silent, write_files

LARGEST_FOLDER = 14_000_000  # bytes


def main() -> None:
    a = arguments().parse_args()
    captions = names()
    net, vae = transformer.trained(a.work), autoencoder.trained(a.work)
    vae.register_to_config(shift_factor=0.0)  # this pipeline adds it
    silence, nothing = silent(captions)
    pipe = StableDiffusion3Pipeline(
        transformer=net.transformer.half(),
        scheduler=transformer.scheduler(),
        vae=vae.half(),
        text_encoder=net.words.first,
        tokenizer=net.tokens,
        text_encoder_2=net.words.second,
        tokenizer_2=net.tokens,
        text_encoder_3=silence,
        tokenizer_3=nothing,
    )
    write(pipe, a, "transformer")
    for part in ("tokenizer", "tokenizer_2"):
        write_files(net.tokens, a.out / part)
    call = {"prompt": "fox", "guidance_scale": 3.0, "num_inference_steps": 28, "max_sequence_length": 8}
    write_about(a.out, call, {caption: i for i, caption in enumerate(captions)})
    check(pipe, a.out, LARGEST_FOLDER, captions)


if __name__ == "__main__":
    main()
