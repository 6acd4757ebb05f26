"""The judge that ships with a zoo model: a small convolutional classifier of its 64x64 pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn


class _Stage(nn.Module):
    """Halve the picture with one convolution, then refine it with a residual one."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.halve = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.GroupNorm(groups, outputs), nn.SiLU()
        )
        self.refine = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(groups, outputs), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.halve(x)
        return x + self.refine(x)


class Classifier(nn.Module):
    """Logits and features of pictures ``(n, 3, 64, 64)`` in [0, 1]; other sizes work but were never trained on."""

    def __init__(self, classes: int, channels: Sequence[int] = (32, 64, 128, 160), groups: int = 8):
        super().__init__()
        self.config = {"classes": classes, "channels": list(channels), "groups": groups}
        widths = [3, *channels]
        self.stages = nn.Sequential(*(_Stage(a, b, groups) for a, b in zip(widths, channels, strict=False)))
        self.head = nn.Linear(channels[-1], classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: the last stage averaged over the picture, ``(n, channels[-1])``."""
        return self.stages(x * 2 - 1).mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, classes)``."""
        return self.head(self.features(x))

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
        """Read a folder of ``config.json`` and ``model.safetensors``, as float32 and in eval mode."""
        from safetensors.torch import load_file

        folder = Path(path)
        model = cls(**json.loads((folder / "config.json").read_text()))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()

    def save(self, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the folder that :meth:`load` reads."""
        from safetensors.torch import save_file

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        state = {name: value.detach().cpu().to(dtype).contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")
