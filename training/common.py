"""What all training scripts share: a budget in minutes, averaged weights, checkpoints that resume, pictures of how far it got."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def device_default() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def autocast(device: str | torch.device) -> Iterator[None]:
    """bfloat16 where the hardware multiplies it: on a GPU, and on a CPU with AMX or AVX512-BF16. Elsewhere it would only be slower.

    On a CPU attention is then plain products: torch's fused one has no bfloat16 there, and going back through it took three times
    as long as in float32.
    """
    kind = torch.device(device).type
    fast = kind != "cpu" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=fast))
        if fast and kind == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


class Budget:
    """Learning-rate factor over minutes of *training*: warm-up, then cosine to 0.

    Pauses, restarts and the time that other programs take do not count: on a CPU a minute is one of the process, divided by
    its threads; on a GPU it is one by the clock, where a gap over 30 seconds counts as a pause. ``seen`` counts what the caller
    adds to it, across restarts too.
    """

    def __init__(self, minutes: float, warmup_steps: int = 100, device: str = "cpu"):
        self.total, self.warmup = minutes * 60, warmup_steps
        self.cpu = torch.device(device).type == "cpu"
        self.spent, self.step, self.seen, self._last = 0.0, 0, 0, self._now()

    def _now(self) -> float:
        return time.process_time() if self.cpu else time.monotonic()

    def tick(self) -> float:
        now = self._now()
        self.spent += (now - self._last) / torch.get_num_threads() if self.cpu else min(now - self._last, 30.0)
        self._last, self.step = now, self.step + 1
        return self.factor

    @property
    def done(self) -> float:
        """Share of the budget that is spent."""
        return min(self.spent / self.total, 1.0)

    @property
    def factor(self) -> float:
        return min(1.0, self.step / self.warmup) * 0.5 * (1 + math.cos(math.pi * self.done))

    @property
    def over(self) -> bool:
        return self.spent >= self.total

    def state_dict(self) -> dict:
        return {"spent": self.spent, "step": self.step, "seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.spent, self.step, self._last = state["spent"], state["step"], self._now()
        self.seen = state.get("seen", 0)


class Ema:
    """Exponential moving average of a module's parameters, with the usual warm-up of the decay."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.shadow = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in module.state_dict().items():
            self.shadow[name].lerp_(value.float(), 1 - keep)

    def state_dict(self) -> dict:
        return {"steps": self.steps, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.shadow = state["steps"], state["shadow"]


class Checkpoint:
    """Saves named parts every ``every`` seconds, atomically, and loads them back; appends one JSON line to a log."""

    def __init__(self, work: Path, name: str, parts: dict, every: float = 120.0):
        work.mkdir(parents=True, exist_ok=True)
        self.path, self.log_path = work / f"{name}.pt", work / f"{name}.log.jsonl"
        self.parts, self.every, self._last = parts, every, time.monotonic()

    def load(self) -> bool:
        if not self.path.exists():
            return False
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for key, part in self.parts.items():
            part.load_state_dict(saved[key])
        return True

    def save(self, force: bool = False) -> bool:
        if not force and time.monotonic() - self._last < self.every:
            return False
        self._last = time.monotonic()
        partial = self.path.with_suffix(".partial")
        torch.save({key: part.state_dict() for key, part in self.parts.items()}, partial)
        partial.replace(self.path)
        return True

    def log(self, **values: float) -> None:
        line = json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})
        with self.log_path.open("a") as f:
            f.write(line + "\n")
        print(line, flush=True)


class Courtesy:
    """Uses all cores while the machine is otherwise idle and one thread while others work: threads that wait for each other
    on busy cores are many times slower than one alone. Does nothing where /proc is missing or the device is no CPU."""

    def __init__(self, every: float = 5.0):
        self.every, self._last, self._before = every, time.monotonic(), self._others()

    @staticmethod
    def _others() -> dict[str, int]:
        """CPU time of every other process, in clock ticks, by process id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            if entry.parent.name != str(os.getpid()):
                with contextlib.suppress(OSError, IndexError, ValueError):
                    fields = entry.read_text().rsplit(")", 1)[1].split()
                    found[entry.parent.name] = int(fields[11]) + int(fields[12])
        return found

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._last < self.every:
            return
        others = self._others()
        ticks = sum(max(spent - self._before.get(pid, 0), 0) for pid, spent in others.items())
        busy = ticks / os.sysconf("SC_CLK_TCK") / (now - self._last)
        torch.set_num_threads(1 if busy > 0.25 else os.cpu_count() or 1)
        self._last, self._before = now, others


def averaged(work: Path, name: str) -> dict[str, torch.Tensor]:
    """The moving average of the weights in a checkpoint."""
    return torch.load(work / f"{name}.pt", map_location="cpu", weights_only=True)["ema"]["shadow"]


def strata(n: int, device: str | torch.device) -> torch.Tensor:
    """One number from each of ``n`` equal parts of [0, 1), in random order: lower variance than independent draws."""
    return (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, for values in [-1, 1]."""
    mse = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().flatten(1).mean(1).clamp_min(1e-12)
    return float((10 * torch.log10(4 / mse)).mean())


def tiled(pictures: torch.Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Pictures ``(n, 3, h, w)`` in [0, 1] side by side."""
    n, _, h, w = pictures.shape
    sheet = torch.ones(3, -(-n // columns) * (h + gap), columns * (w + gap))
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        sheet[:, y * (h + gap) : y * (h + gap) + h, x * (w + gap) : x * (w + gap) + w] = picture.clamp(0, 1)
    return Image.fromarray((sheet.permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous().numpy())


def save_grid(pictures: torch.Tensor, path: str | Path, columns: int = 10, zoom: int = 2, gap: int = 2) -> None:
    """Save pictures ``(n, 3, h, w)`` in [-1, 1] as one: a PNG, or a WebP, a third as large, by the path's suffix."""
    image = tiled(pictures.clamp(-1, 1) / 2 + 0.5, columns, gap)
    image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    image.save(path, **({"quality": 82, "method": 6} if Path(path).suffix == ".webp" else {"optimize": True}))
