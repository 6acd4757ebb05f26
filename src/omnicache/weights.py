"""Tensors that belong to a plan: equal by their contents, and kept in a file beside the plan's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from omnicache.errors import OmniCacheError
from omnicache.kept.files import whole

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The kinds of numbers that a plan may hold."""


class Weights:
    """A fitted tensor in a plan. It never changes; two of equal contents are equal, and are kept once.

    Args:
        tensor: the numbers; a copy of them is kept in the host's memory.
    """

    __slots__ = ("_elsewhere", "_tensor", "sha256")

    def __init__(self, tensor: torch.Tensor):
        name = str(tensor.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise OmniCacheError(f"A plan can hold tensors of {', '.join(DTYPES)}, not of {name}.")
        self._tensor = tensor.detach().to("cpu", copy=True).contiguous()
        said = f"{name} {list(self._tensor.shape)}".encode()
        self.sha256 = hashlib.sha256(said + self._tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        self._elsewhere: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    @property
    def shape(self) -> torch.Size:
        return self._tensor.shape

    @property
    def dtype(self) -> str:
        return str(self._tensor.dtype).removeprefix("torch.")

    @property
    def tensor(self) -> torch.Tensor:
        """The numbers themselves, in the host's memory; they must not be written to."""
        return self._tensor

    def on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The same on a device, moved there once."""
        if (self._tensor.device, self._tensor.dtype) == (device, dtype):
            return self._tensor
        found = self._elsewhere.get((device, dtype))
        if found is None:
            found = self._elsewhere[device, dtype] = self._tensor.to(device, dtype)
        return found

    def to_json(self) -> dict[str, Any]:
        """What a plan file says of it: which tensor of the file beside it is meant."""
        return {"is": "Weights", "sha256": self.sha256, "shape": list(self.shape), "dtype": self.dtype}

    @staticmethod
    def from_json(data: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Weights:
        """The tensor that is meant.

        Raises:
            OmniCacheError: it is not among ``tensors``, or another one is there under its name.
        """
        name = data["sha256"]
        found = Weights(tensors[name]) if name in tensors else None
        if found is None or (found.sha256, list(found.shape), found.dtype) != (name, list(data["shape"]), data["dtype"]):
            state = "missing" if found is None else "others than it was saved with"
            raise OmniCacheError(
                f"The tensors of the plan are {state}. They lie beside it "
                "(x.plan.safetensors beside x.plan.json): copy both files together, or calibrate again."
            )
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Weights({'x'.join(map(str, self.shape))}, {self.sha256[:8]})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Weights:
        return self

    def __reduce__(self) -> Any:
        return Weights, (self._tensor,)


def weights_in(part: Any) -> Iterator[Weights]:
    """All that are found in values, lists and tables, in their order."""
    if isinstance(part, Weights):
        yield part
    elif is_dataclass(part) and not isinstance(part, type):
        for f in fields(part):
            yield from weights_in(getattr(part, f.name))
    elif isinstance(part, Mapping):
        for inner in part.values():
            yield from weights_in(inner)
    elif isinstance(part, (tuple, list)):
        for inner in part:
            yield from weights_in(inner)


def sidecar(path: Path) -> Path:
    """The file with the tensors of the plan at ``path``: ``x.plan.safetensors`` beside ``x.plan.json``."""
    return path.with_suffix(".safetensors")


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write the tensors of a plan beside it; where it has none, what an earlier plan of this name has left is taken away."""
    from safetensors.torch import save_file

    beside = sidecar(path)
    if tensors:
        whole(beside, lambda partial: save_file(dict(tensors), str(partial), metadata={"omnicache": "tensors of a plan"}))
    elif beside.exists() and _ours(beside):
        beside.unlink()


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors beside the plan at ``path``; none where there is no such file.

    Raises:
        OmniCacheError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    beside = sidecar(path)
    if not beside.exists():
        return {}
    try:
        return load_file(str(beside))
    except (SafetensorError, OSError, ValueError) as bad:
        raise OmniCacheError(f"{str(beside)!r}, which lies beside the plan, is not readable ({bad}). Calibrate again.") from None


def _ours(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return "omnicache" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
