"""Write ``emoji-motion`` as a standard diffusers folder, a ``LattePipeline``.

    python -m training.motion.export --work DIR --out zoo/emoji-motion

All weights are the moving averages, in half precision but for the text encoder, which transformers loads as it is stored.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from diffusers import LattePipeline

from training.common import check_sizes, check_weights, copy_logs, write_about
from training.emoji import autoencoder
from training.emoji.transformer import scheduler
from training.motion import transformer
from training.motion.data import PROMPTS, judged
from training.motion.law import FRAMES

LARGEST_FOLDER = 10_000_000  # bytes
PARTS = ("transformer", "vae", "text_encoder")


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    a = ask.parse_args()

    net, vae = transformer.trained(a.work), autoencoder.trained(a.work)
    for old in (*PARTS, "tokenizer", "scheduler"):
        shutil.rmtree(a.out / old, ignore_errors=True)  # an earlier export may have had other files
    pipe = LattePipeline(
        tokenizer=net.words.tokens,
        text_encoder=net.words.encoder,
        vae=vae.half(),
        transformer=net.transformer.half(),
        scheduler=scheduler(),
    )
    pipe.save_pretrained(a.out)
    index = a.out / "model_index.json"  # before version 5 of transformers, the other class wants a file of SentencePiece
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"') + "\n")
    call = {"prompt": "lion spinning", "height": 64, "width": 64, "guidance_scale": 2.0, "num_inference_steps": 50}
    write_about(a.out, call | {"clean_caption": False}, judged(), frames=FRAMES)
    copy_logs(a.work, a.out, ["transformer"])

    back = LattePipeline.from_pretrained(str(a.out))
    check_weights(*({part: getattr(p, part) for part in PARTS} for p in (pipe, back)))
    for prompt in PROMPTS:
        if back.tokenizer(prompt).input_ids != net.words.tokens(prompt).input_ids:
            raise SystemExit(f"the tokenizer did not survive the export: {prompt!r}")
    check_sizes(a.out, LARGEST_FOLDER)


if __name__ == "__main__":
    main()
