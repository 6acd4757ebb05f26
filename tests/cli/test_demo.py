"""The demo on tiny models: one that draws pictures by class, one that draws clips by prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, LattePipeline
from PIL import Image
from typer.testing import CliRunner

import omnicache
from omnicache.cli import app
from omnicache.cli.record import recorded
from omnicache.zoo.classifier import Classifier

from ..methods.tiny import dit

for package in ("altair", "jinja2", "matplotlib", "vl_convert", "torchmetrics"):
    pytest.importorskip(package)

STEPS = {"picture": 12, "clip": 6}
MEASURED = {
    "picture": ("none", "fewer-steps", "omnicache-trajectory", "taylorseer"),
    "clip": ("none", "taylorseer", "omnicache-md"),
}
"""With these, both demos have all kinds of methods; more would take longer."""
LEFT_OUT = ("deepcache", "omnicache-layered")


def vae() -> AutoencoderKL:
    """16x16 to 8x8."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16, **blocks)


def by_class(folder: Path) -> None:
    names = dict(enumerate(("cat", "dog", "fox", "owl")))
    pipe = DiTPipeline(dit(num_embeds_ada_norm=1000, out_channels=4), vae(), DDIMScheduler(clip_sample=False))
    pipe.register_to_config(id2label=names)
    pipe.save_pretrained(folder)
    about = {"call": {"class_labels": [0], "guidance_scale": 1.5, "num_inference_steps": STEPS["picture"]}}
    (folder / "zoo.json").write_text(json.dumps(about))


def by_prompt(folder: Path) -> None:
    motion = pytest.importorskip("training.motion.transformer")
    torch.manual_seed(0)
    net = motion.Net(width=32, layers=3).eval()  # the settings for it leave the first and the last alone
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)  # what begins at zero would hide the rest
    parts = {"tokenizer": net.words.tokens, "text_encoder": net.words.encoder, "transformer": net.transformer}
    LattePipeline(**parts, vae=vae(), scheduler=motion.scheduler()).save_pretrained(folder)
    index = folder / "model_index.json"  # as training/motion/export.py does
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"'))
    usual = {"prompt": "lion moving", "height": 16, "width": 16, "guidance_scale": 2.0, "clean_caption": False}
    labels = {"lion moving": 0, "frog spinning": 1, "rocket growing": 2, "carrot bouncing": 3}
    about = {"call": usual | {"num_inference_steps": STEPS["clip"]}, "labels": labels, "frames": 16}
    (folder / "zoo.json").write_text(json.dumps(about))


@pytest.fixture(params=[("picture", by_class), ("clip", by_prompt)], ids=["pictures", "clips"])
def demo(request, tmp_path, monkeypatch):
    """``(unit, result, folder)`` of a demo."""
    unit, build = request.param
    folder = tmp_path / "zoo" / f"tiny-{unit}"
    build(folder)
    torch.manual_seed(0)
    Classifier(4, channels=(8, 8)).save(folder / "classifier")
    monkeypatch.setenv("OMNICACHE_ZOO", str(tmp_path / "zoo"))
    known = omnicache.methods()
    monkeypatch.setattr(omnicache, "methods", lambda: {name: known[name] for name in (*MEASURED[unit], *LEFT_OUT)})
    args = ["--model", folder.name, "--quick", "--images", "4", "--repeats", "1", "--methods", "all"]
    args += ["--json", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["demo", *args], catch_exceptions=False)
    return unit, json.loads(done.stdout), tmp_path / "out"


def test_all_methods_are_measured_and_shown_or_left_out_with_a_reason(demo):
    unit, result, out = demo
    assert (result["unit"], result["images"], result["steps"]) == (unit, 4, STEPS[unit])
    assert result["guidance"] == {"picture": 1.5, "clip": 2.0}[unit] and len(set(result["inputs"])) == 4
    runs, skipped = {run["label"]: run for run in result["runs"]}, {one["method"]: one["why"] for one in result["skipped"]}
    assert {run["method"] for run in result["runs"]} == set(MEASURED[unit]), skipped
    assert set(skipped) == set(LEFT_OUT)
    assert "needs a U-Net" in skipped["deepcache"] and "omnicache calibrate tiny" in skipped["omnicache-layered"]
    assert runs["none"]["psnr"] is None and runs["none"]["ssim"] == 1 and runs["none"]["compute_fraction"] == 1
    assert runs["taylorseer"]["compute_fraction"] < 1 and runs["taylorseer"]["psnr"] is not None
    if unit == "clip":  # the settings for this class of denoisers, as enable takes them
        assert {"token": 0.2, "frame": 0.3, "block": 0.4}.items() <= runs["omnicache-md"]["options"].items()
    page = (out / "index.html").read_text(encoding="utf-8")
    assert f"4 {unit}s" in page and f'alt="{unit.capitalize()} 4, taylorseer"' in page
    record, plan = recorded(out)
    assert record.model == result["model"] and record.chosen in runs and plan.method == runs[record.chosen]["method"]
    assert [one["label"] for one in record.tried] == list(runs) and list(record.inputs) == result["inputs"]
    files = {"index.html", "grid.png", "run.json", "plan.json"} | ({"clips.gif", "clips.webp"} if unit == "clip" else set())
    assert {path.name for path in out.iterdir()} == files
    if unit == "clip":
        shown = Image.open(out / "clips.gif")
        assert shown.n_frames == 16 and shown.width > 128 * (1 + len(runs)) and shown.height > 128 * 4
