"""What all model cards share: figures with their intervals, tables, sources, the logs' last lines, the writing itself."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import diffusers
import torch
from torch import nn

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


def deviating(found: dict[str, float]) -> str:
    """A kernel distance with its deviation over subsets."""
    return f"{found['mean']:.4f} ± {found['std']:.4f}"


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


def pipeline(a: argparse.Namespace) -> Any:
    """The exported one, on the device and quiet."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(str(a.out)).to(a.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def facts(a: argparse.Namespace, **parts: nn.Module) -> dict[str, Any]:
    """What every card holds beside its figures: the sizes of parts, how long they were trained, from what, and how samples are
    drawn."""
    return {
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "training": budget(a.out),
        "sources": sources(),
        "steps": a.steps,
        "guidance": a.guidance,
        "hardware": a.hardware,
    }


def told(card: dict) -> dict[str, Any]:
    """The same for the templates."""
    return {
        "hardware": f" on {card['hardware']}" if card["hardware"] else "",
        "parameters": table(["part", "parameters"], [[name, f"{n:,}"] for name, n in card["parameters"].items()]),
        "unicode": card["sources"]["unicode_emoji"],
        "font": card["sources"]["font"],
        "font_sha256": card["sources"]["font_sha256"],
        "steps": card["steps"],
        "guidance": f"{card['guidance']:g}",
    }


def effort(log: dict, seen: str) -> dict[str, str]:
    """How long a training took and how many pictures or clips it saw, for the templates."""
    return {"minutes": f"{log['minutes']:.0f}", "updates": f"{log['step']:,}", "seen": f"{log[seen]:,}"}


def write(
    a: argparse.Namespace, template: Path, measure: Callable[[argparse.Namespace], dict], values: Callable[[dict], dict]
) -> None:
    """``card.json`` from ``measure``, unless it is only to be rewritten, and README.md from its ``values`` in ``template``."""
    saved = a.out / "card.json"
    card = json.loads(saved.read_text()) if a.rewrite else rounded(measure(a))
    saved.write_text(json.dumps(card, indent=2) + "\n")
    text = Template(template.read_text(encoding="utf-8")).substitute(values(card))
    (a.out / "README.md").write_text(text, encoding="utf-8")
