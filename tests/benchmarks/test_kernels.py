"""The benchmark of the kernels works, and says where its figures mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "benchmarks" / "kernels.py")


def test_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "kernels.json"
    command = [sys.executable, SCRIPT, "--device", "cpu", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(out.read_text())
    assert found["all_equal"]
    assert {row["what"] for row in found["sums"]} >= {"weighted sum of 3", "relative change"}
    assert found["rows"][0]["merge and unmerge"]["faster_than"]["reference"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
