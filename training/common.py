"""What all training scripts share: a budget in minutes, optimizers, checkpoints that resume, a log that ships with the weights."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn


def device_default() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(device: str | torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 where the hardware multiplies it: on a GPU, and on a CPU with AMX. Elsewhere it would only be slower."""
    kind = torch.device(device).type
    fast = kind != "cpu" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(kind, torch.bfloat16, enabled=fast)


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


def check_weights(saved: dict[str, nn.Module], back: dict[str, nn.Module]) -> None:
    """Refuse an export unless what was read back is what was saved, as single precision."""
    for part, model in saved.items():
        was, now = model.state_dict(), back[part].state_dict()
        if was.keys() != now.keys():
            raise SystemExit(f"{part} has other weights than were exported: {sorted(was.keys() ^ now.keys())}")
        for name, value in now.items():
            if value.is_floating_point() and not (value.dtype == torch.float32 and torch.equal(value, was[name].float())):
                raise SystemExit(f"{part}.{name} did not survive the export")


def write_about(out: Path, call: dict[str, Any], labels: dict[str, int], **more: Any) -> None:
    """What ``omnicache.zoo`` says of a model without a classifier of its own: arguments that suit it, which class of ``emoji``'s
    classifier each prompt is, and where they are needed the ``frames`` of a clip and the ``inputs`` for each prompt."""
    about = {"call": call, "classifier": "emoji", "labels": labels, **more}
    (out / "zoo.json").write_text(json.dumps(about, indent=2) + "\n")


def copy_logs(work: Path, out: Path, names: Iterable[str]) -> None:
    """The training logs of ``names`` into the exported folder."""
    shutil.rmtree(out / "log", ignore_errors=True)
    (out / "log").mkdir(parents=True)
    for name in names:
        if (work / f"{name}.log.jsonl").exists():
            shutil.copyfile(work / f"{name}.log.jsonl", out / "log" / f"{name}.jsonl")


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) as ``torch.optim.Muon`` does it, but orthogonal in float32: on a CPU without bfloat16 that takes
    a third of the time."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            lr, keep = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                mean.lerp_(p.grad, 1 - keep)
                update = _orthogonal(p.grad.lerp(mean, keep))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr * 0.2 * max(p.shape) ** 0.5)  # the size of an update of AdamW


def _orthogonal(x: torch.Tensor) -> torch.Tensor:
    """About the nearest orthogonal matrix, by five steps of a Newton-Schulz iteration."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


def optimizers(model: nn.Module, lr: float, matrix: Callable[[str], bool]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices whose name ``matrix`` chooses, those inside blocks; AdamW for the rest.

    About half the steps of AdamW alone in our trials.
    """
    chosen = {name: p for name, p in model.named_parameters() if p.ndim == 2 and p.requires_grad and matrix(name)}
    rest = [p for name, p in model.named_parameters() if name not in chosen and p.requires_grad]
    return [Muon(chosen.values(), lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)]


class Several:
    """Several optimizers saved as one part of a checkpoint, and stepped as one."""

    def __init__(self, opts: list[torch.optim.Optimizer]):
        self.opts = opts

    def step(self, lr: float) -> None:
        """One update with the gradients that are there, which are dropped then."""
        for opt in self.opts:
            for group in opt.param_groups:
                group["lr"] = lr
            opt.step()
            opt.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        return {str(i): o.state_dict() for i, o in enumerate(self.opts)}

    def load_state_dict(self, state: dict) -> None:
        for i, o in enumerate(self.opts):
            o.load_state_dict(state[str(i)])


def strata(n: int, device: str | torch.device) -> torch.Tensor:
    """One number from each of ``n`` equal parts of [0, 1), in random order: lower variance than independent draws."""
    return (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, for values in [-1, 1]."""
    mse = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().flatten(1).mean(1).clamp_min(1e-12)
    return float((10 * torch.log10(4 / mse)).mean())


def grid_png(pictures: torch.Tensor, path: str | Path, columns: int = 10, zoom: int = 2, gap: int = 2) -> None:
    """Save pictures ``(n, 3, h, w)`` in [-1, 1] as one PNG."""
    from PIL import Image

    n, _, h, w = pictures.shape
    rows = math.ceil(n / columns)
    sheet = torch.ones(3, rows * (h + gap), columns * (w + gap))
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        sheet[:, y * (h + gap) : y * (h + gap) + h, x * (w + gap) : x * (w + gap) + w] = picture.clamp(-1, 1) / 2 + 0.5
    raw = (sheet.permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous()
    image = Image.fromarray(raw.numpy())
    image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST).save(path)
