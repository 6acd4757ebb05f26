"""Write what was trained as a standard diffusers folder, with its judge and its logs.

    python -m training.emoji.export --work DIR --out src/omnicache/zoo/emoji

All weights are the moving averages, in half precision. ``diffusers.DiTPipeline.from_pretrained(OUT)`` reads them back
in single precision. ``--untrained`` stands in for a transformer that does not exist yet, to try the script.
"""

from __future__ import annotations

import json

import torch
from diffusers import DiTPipeline, DiTTransformer2DModel

from omnicache.zoo.classifier import Classifier
from training.common import averaged
from training.emoji import autoencoder, transformer
from training.emoji.data import names
from training.exports import arguments, check, write
from training.loop import SEED

LARGEST_FOLDER = 20_000_000  # bytes


def without_unused(model: DiTTransformer2DModel, classes: int) -> DiTTransformer2DModel:
    """Zero the class embeddings between the last class and the null class: never trained, and zeros compress."""
    for block in model.transformer_blocks:
        block.norm1.emb.class_embedder.embedding_table.weight.data[classes : transformer.NULL] = 0
    return model


def main() -> None:
    ask = arguments()
    ask.add_argument("--classes", type=int, default=100)
    ask.add_argument("--untrained", action="store_true", help="export a random transformer of width 96")
    a = ask.parse_args()

    torch.manual_seed(SEED)
    vae = autoencoder.trained(a.work)
    if a.untrained:
        dit, scale = without_unused(transformer.build(96), a.classes), 1.0
    else:
        dit, scale = without_unused(transformer.trained(a.work), a.classes), transformer.Latents(a.work, "cpu").scale
    vae.register_to_config(scaling_factor=scale)
    pipe = DiTPipeline(dit.half(), vae.half(), transformer.scheduler())
    pipe.register_to_config(id2label=dict(enumerate(names(a.classes))))
    write(pipe, a, "autoencoder", "transformer", "classifier")

    judge = Classifier(a.classes)
    judge.load_state_dict(averaged(a.work, "classifier"))
    judge.save(a.out / "classifier")
    call = {"class_labels": [0], "guidance_scale": 2.0, "num_inference_steps": 50}
    (a.out / "zoo.json").write_text(json.dumps({"call": call}, indent=2) + "\n")
    Classifier.load(a.out / "classifier")
    back = check(pipe, a.out, LARGEST_FOLDER)
    if back.scheduler.config.prediction_type != "v_prediction" or len(back.labels) != len(pipe.config.id2label):
        raise SystemExit("the scheduler or the labels did not survive the export")


if __name__ == "__main__":
    main()
