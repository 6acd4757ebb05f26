"""The benchmark at full size works before a large GPU is there to run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import full_size

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "benchmarks" / "full_size.py")


def test_every_architecture_scaled_down(tmp_path: Path) -> None:
    out = tmp_path / "full_size.json"
    small = ["--tiny", "--device", "cpu", "--rounds", "1", "--steps", "6", "--out", str(out)]
    subprocess.run([sys.executable, SCRIPT, *small], cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(out.read_text())["architectures"]
    assert set(found) == {"sd3-medium", "svd-xt", "latte-1", "flux.1-dev", "cogvideox-5b"}
    for name, architecture in found.items():
        for way in architecture["variants"]:
            assert "error" not in way, (name, way)
            assert way["finite"]
            assert way["variant"] == "uncached" or set(way["computed"]) & set(".o"), (name, way)


def test_at_full_size_everything_fits() -> None:
    """Parameters as published, and the output of an evaluation in the shape of the latents; no memory is needed for that."""
    for architecture in full_size.ARCHITECTURES.values():
        full_size.check(architecture)


def test_rows_are_dropped_where_the_paper_does() -> None:
    assert full_size.rows(full_size.SD3, token=0.6).options["mlp"] is True
    assert full_size.rows(full_size.SD3, token=0.6).options["edge"] == 4
    options = full_size.rows(full_size.SVD, frame=0.5).options
    assert (options["token"], options["frame"], options["block"], options["sharp"]) == (0.0, 0.5, 0.0, 1)
