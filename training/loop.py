"""The loop that trains the generators of the zoo: what their scripts ask for, and all that goes with an update."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from training.common import Budget, Checkpoint, Ema, device_default, save_grid
from training.emoji import autoencoder
from training.optimizers import optimizers

SEED = 0


def arguments(of: str, batch: int, width: int = 0, coarse: float = 0.0, **defaults: float) -> argparse.ArgumentParser:
    """What the scripts ask for. Only transformers have a ``width``, and only some begin ``coarse``; ``of`` says what is counted,
    pictures or clips."""
    twice = "; twice as many while they are coarse" if coarse else ""
    ask = argparse.ArgumentParser()
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument("--minutes", type=float, default=100)
    ask.add_argument("--batch", type=int, default=batch, help=f"{of} a step{twice}")
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--ema", type=float, default=0.999)
    ask.add_argument("--device", default=device_default())
    ask.add_argument(
        "--start", type=Path, help="an exported model whose weights to begin with; give --coarse 0 then, where there is one"
    )
    if width:
        ask.add_argument("--width", type=int, default=width)
        ask.add_argument("--compile", action="store_true", help="compile the blocks: a minute or two first, then a fifth faster")
    if coarse:
        ask.add_argument("--coarse", type=float, default=coarse, help="share of the time with a quarter of the tokens")
    ask.set_defaults(compile=False, of=of, **defaults)
    return ask


class Run:
    """Updates of ``net`` until the minutes are spent, from where the checkpoint ``name`` in ``a.work`` left off; if there is none,
    from the weights of the exported pipeline ``a.start``, whose parts stand in ``net`` where ``net.parts`` says.

    Iterating gives the share of the time that is spent; the loop's body computes a loss and calls :meth:`update`.
    """

    def __init__(self, a: argparse.Namespace, name: str, net: nn.Module):
        self.a, self.name, self.net, self.loss = a, name, net, 0.0
        if a.start is not None:
            pipe = DiffusionPipeline.from_pretrained(str(a.start))
            for part, path in net.parts.items():
                net.get_submodule(path).load_state_dict(getattr(pipe, part).state_dict())
        self.opt, self.ema, self.budget = optimizers(net, a.lr), Ema(net, a.ema), Budget(a.minutes, device=a.device)
        parts = {"model": net, "opt": self.opt, "ema": self.ema, "budget": self.budget}
        self.kept = Checkpoint(a.work, name, parts)
        self.earlier = self._earlier()
        if self.kept.load():
            torch.manual_seed(SEED + self.budget.step)  # a restart must not repeat the same noise
        self.next_picture = 600.0 * (1 + int(self.budget.spent // 600))
        if a.compile:
            for path, module in net.named_modules():
                if re.search(r"transformer_blocks\.\d+$", path):
                    module.compile()

    def _earlier(self) -> dict[str, float]:
        """How far the exported weights had come, whose log this one goes on with."""
        log = self.a.start / "log" / f"{self.name}.jsonl" if self.a.start is not None else None
        if log is None or not log.exists():
            return {}
        if not self.kept.path.exists():
            shutil.copyfile(log, self.kept.log_path)
        return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])

    def __iter__(self) -> Iterator[float]:
        while not self.budget.over:
            self.budget.tick()
            yield self.budget.done

    def update(self, loss: torch.Tensor, n: int, **notes: Any) -> bool:
        """One update, after ``n`` more pictures or clips; ``notes`` go to the log. True when it is time to :meth:`show`
        something: every ten minutes and at the end."""
        budget = self.budget
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.opt.step(self.a.lr * budget.factor)
        self.ema.update(self.net)
        budget.seen += n
        self.loss = loss.item() if self.loss == 0 else 0.99 * self.loss + 0.01 * loss.item()
        if budget.step % 20 == 0:
            print(f"{budget.step}: {budget.spent / 60:.1f} minutes, {self.loss:.4f}, load {os.getloadavg()[0]:.1f}", flush=True)
        if self.kept.save(force=budget.over):
            so_far = {"step": budget.step, "minutes": budget.spent / 60, **notes, self.a.of: budget.seen}
            counted = {name: so_far[name] + self.earlier.get(name, 0) for name in ("step", "minutes", self.a.of)}
            self.kept.log(**so_far | counted, loss=self.loss)
        due = budget.spent > self.next_picture or budget.over
        self.next_picture += 600 * due
        return due

    def show(self, z: torch.Tensor, **how: int) -> None:
        """The pictures of latents ``(n, 4, h, w)``, beside the checkpoint."""
        vae = autoencoder.trained(self.a.work)
        with torch.no_grad():
            save_grid(vae.decode(z).sample, self.a.work / f"{self.name}.png", **how)


@torch.no_grad()
def sample(model: Callable[..., torch.Tensor], scheduler: Any, label: torch.Tensor, none: int, *shape: int) -> torch.Tensor:
    """A latent of ``shape`` for each label, in 20 steps with a classifier-free guidance of 2; the label ``none`` is without."""
    scheduler.set_timesteps(20)
    z = torch.randn(len(label), *shape, generator=torch.Generator().manual_seed(0))
    both = torch.cat([label, torch.full_like(label, none)])
    for t in scheduler.timesteps:
        cond, free = model(torch.cat([z, z]), t.expand(len(both)), both).float().chunk(2)
        z = scheduler.step(free + 2.0 * (cond - free), t, z).prev_sample
    return z
