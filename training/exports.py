"""What all exports share: the folder as diffusers saves it, what ``omnicache.zoo`` reads beside it, and proof that it loads."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

OLDER = {"T5Tokenizer": "T5TokenizerFast", "CLIPImageProcessorPil": "CLIPImageProcessor"}
"""Classes by names that older versions of transformers load: the first would want a file of SentencePiece there, and they do not
know the second, which stands in where there is no torchvision."""


def arguments() -> argparse.ArgumentParser:
    """What every export asks for."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    return ask


def write(pipe: DiffusionPipeline, a: argparse.Namespace, *logs: str) -> None:
    """The pipeline in place of an earlier export, and the training logs of these names."""
    for old in (*pipe.components, "log"):
        shutil.rmtree(a.out / old, ignore_errors=True)  # it may have had other files
    pipe.save_pretrained(a.out, max_shard_size="14MB")
    for config in a.out.glob("*/config.json"):  # which say where their weights were read from
        told = json.loads(config.read_text(encoding="utf-8"))
        if told.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    index = a.out / "model_index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))
    parts = {part: [OLDER.get(x, x) for x in of] if isinstance(of, list) else of for part, of in parts.items()}
    index.write_text(json.dumps(parts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (a.out / "log").mkdir()
    for name in logs:
        if (a.work / f"{name}.log.jsonl").exists():
            shutil.copyfile(a.work / f"{name}.log.jsonl", a.out / "log" / f"{name}.jsonl")


def write_about(out: Path, call: dict[str, Any], labels: dict[str, int], **more: Any) -> None:
    """What ``omnicache.zoo`` says of a model without a classifier of its own: arguments that suit it, which class of ``emoji``'s
    classifier each prompt is, and where they are needed the ``frames`` of a clip and the ``inputs`` for each prompt."""
    about = {"call": call, "classifier": "emoji", "labels": labels, **more}
    (out / "zoo.json").write_text(json.dumps(about, indent=2) + "\n")


def check(pipe: DiffusionPipeline, out: Path, largest: int, prompts: Iterable[str] = ()) -> DiffusionPipeline:
    """What plain diffusers reads back. Refuse the export unless that has the same weights and tokens for the prompts, and the
    folder at most ``largest`` bytes."""
    back = type(pipe).from_pretrained(str(out))
    check_weights(*({name: part for name, part in p.components.items() if isinstance(part, nn.Module)} for p in (pipe, back)))
    for prompt in prompts:
        if back.tokenizer(prompt).input_ids != pipe.tokenizer(prompt).input_ids:
            raise SystemExit(f"the tokenizer did not survive the export: {prompt!r}")
    check_sizes(out, largest)
    return back


def check_weights(saved: dict[str, nn.Module], back: dict[str, nn.Module]) -> None:
    """Refuse an export unless what was read back is what was saved, as single precision."""
    for part, model in saved.items():
        was, now = model.state_dict(), back[part].state_dict()
        if was.keys() != now.keys():
            raise SystemExit(f"{part} has other weights than were exported: {sorted(was.keys() ^ now.keys())}")
        for name, value in now.items():
            if value.is_floating_point() and not (value.dtype == torch.float32 and torch.equal(value, was[name].float())):
                raise SystemExit(f"{part}.{name} did not survive the export")


def check_sizes(out: Path, folder: int, file: int = 15_000_000) -> None:
    """Print the size of every file and refuse a folder or a file, weights above all, with more bytes than allowed."""
    sizes = {f: f.stat().st_size for f in sorted(out.rglob("*")) if f.is_file()}
    for path, size in sizes.items():
        print(f"{size:>10,} {path.relative_to(out)}")
        if size > file:
            raise SystemExit(f"{path} has {size} bytes, {file} are allowed")
    print(f"{sum(sizes.values()):>10,} bytes in all")
    if sum(sizes.values()) > folder:
        raise SystemExit(f"{out} has {sum(sizes.values())} bytes, {folder} are allowed")
