"""What all model cards share: figures with their intervals, tables, sources, the logs' last lines, the writing itself."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

from omnicache.measure import confidence95
from training.common import device_default
from training.emoji.data import FONT, NAMES


def mean(values: torch.Tensor) -> dict[str, float]:
    """Mean and bootstrap interval, for the JSON."""
    low, high = confidence95(values)
    return {"mean": float(values.double().mean()), "low": low, "high": high, "n": len(values)}


def spread(values: torch.Tensor) -> dict[str, float]:
    """Minimum, 5th percentile and median, for the JSON."""
    low, middle = torch.quantile(values.double(), torch.tensor([0.05, 0.5], dtype=torch.float64, device=values.device))
    return {"min": float(values.min()), "p05": float(low), "median": float(middle), "n": len(values)}


def budget(out: Path) -> dict[str, dict]:
    """The last line of each training log."""
    logs = sorted((out / "log").glob("*.jsonl"))
    return {log.stem: json.loads(log.read_text().splitlines()[-1]) for log in logs if log.read_text().strip()}


def sources() -> dict[str, str]:
    """What the pictures were drawn from, and with which versions this was measured."""
    version = re.search(r"^# Version: (.+)$", NAMES.read_text(), re.MULTILINE)
    return {
        "font": FONT.name,
        "font_sha256": hashlib.sha256(FONT.read_bytes()).hexdigest(),
        "unicode_emoji": version[1] if version else "unknown",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def percent(found: dict[str, float]) -> str:
    """A share with its interval, or with its counts where the interval is a point."""
    low, high, n = found["low"], found["high"], int(found["n"])
    sure = f"{round(found['mean'] * n):,} of {n:,}" if low == high else f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{100 * found['mean']:.1f} % ({sure})"


def rounded(value: Any) -> Any:
    """Floats to six significant digits, at any depth."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def arguments(guidance: float, steps: int) -> argparse.ArgumentParser:
    """What every card asks for; a script may add to it."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--out", type=Path, required=True, help="the exported folder; the card is written into it")
    ask.add_argument("--guidance", type=float, default=guidance, help="of the grid")
    ask.add_argument("--steps", type=int, default=steps)
    ask.add_argument("--hardware", default="", help='what it was trained on, in words: "two CPU cores"')
    ask.add_argument("--device", default=device_default(), help="as the training pictures were drawn on")
    ask.add_argument("--rewrite", action="store_true", help="README.md anew from card.json, without measuring")
    return ask


def write(a: argparse.Namespace, measure: Callable[[argparse.Namespace], dict], readme: Callable[[dict], str]) -> None:
    """``card.json`` from ``measure``, unless it is only to be rewritten, and README.md from it."""
    saved = a.out / "card.json"
    card = json.loads(saved.read_text()) if a.rewrite else rounded(measure(a))
    saved.write_text(json.dumps(card, indent=2) + "\n")
    (a.out / "README.md").write_text(readme(card), encoding="utf-8")
