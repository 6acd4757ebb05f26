"""Write what was trained as a standard diffusers folder, with its judge and its logs.

    python -m training.emoji.export --work DIR --out src/omnicache/zoo/emoji

All weights are the moving averages, in half precision. ``diffusers.DiTPipeline.from_pretrained(OUT)`` reads them back
in single precision. ``--untrained`` stands in for a transformer that does not exist yet, to try the script.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import DiTPipeline, DiTTransformer2DModel

from omnicache.zoo.classifier import Classifier
from training.common import averaged, check_sizes, check_weights, copy_logs
from training.emoji import autoencoder, transformer
from training.emoji.data import emoji_list

LARGEST_FOLDER = 20_000_000  # bytes
LOGS = ("autoencoder", "transformer", "classifier")


def trained_transformer(work: Path, classes: int) -> DiTTransformer2DModel:
    """The transformer, as wide as its checkpoint says, without the class embeddings that no class uses."""
    state = averaged(work, "transformer")
    model = transformer.build(state["transformer_blocks.0.attn1.to_q.weight"].shape[0])
    model.load_state_dict(state)
    return without_unused(model, classes)


def without_unused(model: DiTTransformer2DModel, classes: int) -> DiTTransformer2DModel:
    """Zero the class embeddings between the last class and the null class: never trained, and zeros compress."""
    for block in model.transformer_blocks:
        block.norm1.emb.class_embedder.embedding_table.weight.data[classes : transformer.NULL] = 0
    return model


def names(classes: int) -> dict[int, str]:
    """Class id to CLDR name."""
    return dict(enumerate(name for _, name in emoji_list(classes)))


def check(out: Path, saved: DiTPipeline) -> None:
    """Raise unless plain diffusers reads the folder back, as single precision and with the same weights."""
    back = DiTPipeline.from_pretrained(str(out))
    check_weights(*({part: getattr(pipe, part) for part in ("transformer", "vae")} for pipe in (saved, back)))
    if back.scheduler.config.prediction_type != "v_prediction" or len(back.labels) != len(saved.config.id2label):
        raise SystemExit("the scheduler or the labels did not survive the export")
    Classifier.load(out / "classifier")
    check_sizes(out, LARGEST_FOLDER)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--classes", type=int, default=100)
    ask.add_argument("--untrained", action="store_true", help="export a random transformer of width 96")
    a = ask.parse_args()

    torch.manual_seed(transformer.SEED)
    for part in ("transformer", "vae", "scheduler", "classifier"):
        shutil.rmtree(a.out / part, ignore_errors=True)  # an earlier export may have had other files
    vae = autoencoder.trained(a.work)
    if a.untrained:
        dit, scale = without_unused(transformer.build(96), a.classes), 1.0
    else:
        dit, scale = trained_transformer(a.work, a.classes), transformer.Latents(a.work, "cpu").scale
    vae.register_to_config(scaling_factor=scale)
    pipe = DiTPipeline(dit.half(), vae.half(), transformer.scheduler())
    pipe.register_to_config(id2label=names(a.classes))
    pipe.save_pretrained(a.out, max_shard_size="14MB")

    judge = Classifier(a.classes)
    judge.load_state_dict(averaged(a.work, "classifier"))
    judge.save(a.out / "classifier")

    call = {"class_labels": [0], "guidance_scale": 2.0, "num_inference_steps": 50}
    (a.out / "zoo.json").write_text(json.dumps({"call": call}, indent=2) + "\n")
    copy_logs(a.work, a.out, LOGS)
    index = a.out / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()), indent=2, ensure_ascii=False) + "\n")
    check(a.out, pipe)


if __name__ == "__main__":
    main()
