"""What a pipeline made, as a file."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from omnicache.report.clips import FRAMES_A_SECOND


def save(pipe: Any, result: Any, stem: Path) -> tuple[Path, str | None]:
    """Write the first thing that ``result`` holds to ``stem`` with a fitting ending.

    Returns:
        The path, and a sentence if it is no picture.
    """
    made = _first(result)
    if hasattr(made, "save") and hasattr(made, "size"):  # a Pillow image
        return _written(made, stem.with_suffix(".png")), None
    if getattr(result, "audios", None) is not None and (rate := _rate(pipe)) is not None:
        return _sound(torch.as_tensor(made), rate, stem.with_suffix(".wav")), f"The result is sound, saved at {rate} Hz."
    if frames := _frames(made):
        path = stem.with_suffix(".webp")
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / FRAMES_A_SECOND), loop=0)
        return path, f"The result is a video of {len(frames)} frames, saved at {FRAMES_A_SECOND} a second."
    path = stem.with_suffix(".pt")
    kept = made if isinstance(made, torch.Tensor) else torch.as_tensor(made)
    torch.save(kept.detach().cpu(), path)
    return path, f"The result is no picture but numbers of the shape {tuple(kept.shape)}; read it with torch.load."


def _first(result: Any) -> Any:
    """The first entry of the batch of the first field: every pipeline has its own word for it."""
    fields = list(result.values()) if isinstance(result, Mapping) else list(result) if isinstance(result, (tuple, list)) else []
    for word in ("images", "frames", "audios", "videos"):
        if getattr(result, word, None) is not None:
            return getattr(result, word)[0]
    return fields[0][0] if fields else result


def _written(image: Any, path: Path) -> Path:
    image.save(path)
    return path


def _frames(made: Any) -> list[Any]:
    """Pillow images of a video, which comes as a list of them or as numbers ``(frames, h, w, 3)`` or ``(frames, 3, h, w)``."""
    from PIL import Image

    if isinstance(made, (list, tuple)):
        return list(made) if made and all(hasattr(one, "save") for one in made) else []
    numbers = torch.as_tensor(made)
    if numbers.ndim == 4 and numbers.shape[1] == 3 and numbers.shape[-1] != 3:
        numbers = numbers.permute(0, 2, 3, 1)
    if numbers.ndim != 4 or numbers.shape[-1] != 3:
        return []
    rows = numbers if numbers.dtype == torch.uint8 else (numbers.float().clamp(0, 1) * 255).round().byte()
    return [Image.fromarray(one.cpu().contiguous().numpy()) for one in rows]


def _rate(pipe: Any) -> int | None:
    """Samples a second, from the part that makes the sound."""
    for part in ("vocoder", "vae", "unet", "transformer"):
        config = getattr(getattr(pipe, part, None), "config", None)
        rate = getattr(config, "sampling_rate", None) or getattr(config, "sample_rate", None)
        if isinstance(rate, int):
            return rate
    return None


def _sound(samples: torch.Tensor, rate: int, path: Path) -> Path:
    """16-bit samples ``(n,)`` or ``(channels, n)`` in [-1, 1]."""
    channels = samples.float().cpu().reshape(-1, samples.shape[-1])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels.clamp(-1, 1) * 32767).round().short().T.contiguous().numpy().tobytes())
    return path
