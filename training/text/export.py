"""Write ``emoji-text`` as a standard diffusers folder, a ``StableDiffusion3Pipeline`` whose T5 is silent.

    python -m training.text.export --work DIR --out zoo/emoji-text

All weights are the moving averages, in half precision but for the text encoders, which transformers loads as they are stored.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from diffusers import StableDiffusion3Pipeline

from training.common import check_sizes, check_weights, copy_logs, write_about
from training.emoji import autoencoder
from training.emoji.data import emoji_list
from training.text import transformer
from training.text.words import silent, write_files

LARGEST_FOLDER = 14_000_000  # bytes
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    a = ask.parse_args()

    captions = [name for _, name in emoji_list(100)]
    net, vae = transformer.trained(a.work, captions), autoencoder.trained(a.work)
    vae.register_to_config(shift_factor=0.0)  # this pipeline adds it
    for old in (*PARTS, "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"):
        shutil.rmtree(a.out / old, ignore_errors=True)  # an earlier export may have had other files
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
    pipe.save_pretrained(a.out, max_shard_size="14MB")
    index = a.out / "model_index.json"  # before version 5 of transformers, the other class wants a file of SentencePiece
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"') + "\n")
    for part in ("tokenizer", "tokenizer_2"):
        write_files(net.tokens, a.out / part)
    call = {"prompt": "fox", "guidance_scale": 3.0, "num_inference_steps": 28, "max_sequence_length": 8}
    write_about(a.out, call, {caption: i for i, caption in enumerate(captions)})
    copy_logs(a.work, a.out, ["transformer"])

    back = StableDiffusion3Pipeline.from_pretrained(str(a.out))
    check_weights(*({part: getattr(p, part) for part in PARTS} for p in (pipe, back)))
    for caption in captions:
        if back.tokenizer(caption).input_ids != net.tokens(caption).input_ids:
            raise SystemExit(f"the tokenizer did not survive the export: {caption!r}")
    check_sizes(a.out, LARGEST_FOLDER)


if __name__ == "__main__":
    main()
