"""What triggers may ask about a step: how much a tensor has changed since an earlier one, per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from omnicache.kernels import change_of, change_sums
from omnicache.models.grid import Grid
from omnicache.policy import Signal, Tensors, Where, value
from omnicache.runtime.streams import tensors_of
from omnicache.schema import Choice, Range

PEEKED = " modulated"
"""Under this name, which no argument can have, ``Probe`` adds what the block handed to its attention,"""
ENTERED = " entered"
"""under this one what the first block was given, under this what a module has returned,"""
RETURNED = " returned"
"""and under this the ``Step`` in progress."""
STEP = " step"


def moving(bound: Mapping[str, Any]) -> Tensors:
    """What can be watched in a model that is not known: its hidden states, or else all streams among its arguments."""
    if isinstance(x := bound.get("hidden_states"), torch.Tensor):
        return (x,)
    found = [t for v in bound.values() for t in tensors_of(v) if t.is_floating_point()]
    rank = 3 if any(t.ndim >= 3 for t in found) else 2
    return tuple(t if rank == 3 else t[None] for t in found if t.ndim >= rank)


Norm = Annotated[str, Choice(("l1", "l2", "mean", "mse"))]
"""How a change is told: relative ("l1": of sums, "l2": of roots of squares), or as the mean of absolute values or of squares."""


def gains(count: int, a: float, b: float, power: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Gains ``(count,)`` of the Wiener filter along an axis, in the order of ``fftfreq``, over their mean."""
    a, b = max(a, 1e-6), max(b, 1e-6)
    spectrum = 1 / (torch.fft.fftfreq(count, device=device).abs() ** power + 1e-16)
    gain = a * spectrum / (a * a * spectrum + b * b + 1e-16)
    return gain / gain.mean()


def wiener(x: torch.Tensor, axes: tuple[int, ...], a: float, b: float, power: float) -> torch.Tensor:
    """``x`` in float32, filtered along ``axes``; see ``ContentChange``."""
    spectrum = torch.fft.fftn(x.float(), dim=axes)
    for axis in axes:
        gain = gains(x.shape[axis], a, b, power, x.device)
        spectrum = spectrum * gain.view([-1 if i == axis else 1 for i in range(x.ndim)])
    return torch.fft.ifftn(spectrum, dim=axes).real


class _Change(Signal):
    norm: str

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        top, bottom = change_sums(now, before, "l2" if self.norm in ("l2", "mse") else "l1")
        if self.norm in ("mean", "mse"):
            bottom = torch.full_like(top, now[0].numel())
        return torch.stack((top, bottom))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums, "l2" if self.norm == "l2" else "l1")


@value
class LatentChange(_Change):
    """Change of the denoiser's input."""

    norm: Norm = "l1"
    against: Annotated[str, Choice(("visited", "computed"))] = "visited"  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "denoiser"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for v in bound.values() for t in tensors_of(v) if t.ndim >= 3 and t.is_floating_point()), None)


@value
class ModulatedInputChange(_Change):
    """Relative change of the first block's normed and modulated input (TeaCache, arXiv 2411.19108, section 3.2).

    Blocks norm and modulate in many ways, and all hand the result to their attention: that is where it is read (``Probe``).
    """

    norm: Norm = "l1"
    at = "stack"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return bound.get(PEEKED)


@value
class TimeChange(_Change):
    """Change of the embedded time that the first block is given, the same for all inputs (TeaCache on CogVideoX and Wan)."""

    norm: Norm = "l1"
    at = "stack"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((v for n in ("temb", "timestep_proj", "emb") if isinstance(v := bound.get(n), torch.Tensor)), None)


@value
class ContentChange(ModulatedInputChange):
    """The same after a Wiener filter that lets pass what is picture and not noise at each step's own noise level (SeaCache).

    The filter's gain is ``a S / (a^2 S + b^2)`` on each axis of the token grid, where the latent is ``a`` times picture and ``b``
    times noise and ``S(f) = 1 / |f|^power``, over its mean. None where the noise level is not known, or how tokens lie in a grid.

    Attributes:
        of: the first block's modulated input, as released, or the "latent", which is a hundred times less to transform.
        power: of the spectrum; None for 2 on pictures and 3 on films.
    """

    of: Annotated[str, Choice(("modulated", "latent"))] = "modulated"
    power: Annotated[float, Range(0)] | None = None
    needs_grid = True

    @property
    def at(self) -> str:  # type: ignore[override]
        return "stack" if self.of == "modulated" else "denoiser"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        step = bound[STEP]
        found = bound.get(PEEKED) if self.of == "modulated" else next(iter(moving(bound)), None)
        if found is None or step.mix is None or step.latent is None:
            return None
        if found.ndim > 3:
            film, axes = found, tuple(range(2, found.ndim))
        elif (grid := Grid.of(step.latent, *found.shape[:2])) is not None and grid.fits(found):
            film = grid.film(found)
            axes = tuple(axis for axis in (1, 2, 3) if film.shape[axis] > 1)
        else:
            return None
        power = self.power if self.power is not None else 3.0 if step.latent.frames > 1 else 2.0
        return wiener(film, axes, *step.mix, power)


@value
class ProbeChange(_Change):
    """Relative change of what the first blocks make of the stream, before the others decide whether to run.

    Attributes:
        depth: so many blocks are looked at, and run at every step; of 0 what the first block is given.
        of: "increment" is what they have added (First-Block-Cache, DBCache), "output" what they hand on (DiCache), "excess" by how
            much the change of that differs from the change of what they are given.
        against: the last step that was computed, or the last one "visited".
    """

    depth: Annotated[int, Range(0)] = 1
    of: Annotated[str, Choice(("increment", "output", "excess"))] = "increment"
    against: Annotated[str, Choice(("computed", "visited"))] = "computed"  # pyright: ignore[reportIncompatibleVariableOverride]
    norm: Norm = "l1"

    @property
    def at(self) -> int:  # type: ignore[override]
        return self.depth

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        found, entered = moving(bound), bound.get(ENTERED)
        if not found or self.of == "output" or entered is None or entered.shape != found[0].shape:
            return found[0] if found else None
        return found[0] - entered if self.of == "increment" else torch.stack((found[0], entered), 1)

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        if self.of != "excess":
            return super().sums(now, before)
        return torch.cat([_Change.sums(self, a, b) for a, b in zip(now.unbind(1), before.unbind(1), strict=True)])

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        if self.of != "excess":
            return super().change(sums)
        handed_on, given = (_Change.change(self, part) for part in sums.split(2))
        return (handed_on - given).abs()


@value
class ChiSquareChange(ProbeChange):
    """The squared relative change of what the first blocks hand on, over its limit ``chi^2 / ND`` (FastCache, as published):
    ``1 + z sqrt(2 / ND)`` for ``ND`` numbers a sample. That is hardly above 1, so any change below the whole passes."""

    of: Annotated[str, Choice(("increment", "output"))] = "output"
    against: Annotated[str, Choice(("computed", "visited"))] = "visited"  # pyright: ignore[reportIncompatibleVariableOverride]
    z: float = 1.96

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        found = change_sums(now, before, "l2")
        return torch.cat((found, torch.full_like(found[:1], now[0].numel())))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums[:2], "l2").square() / (1 + self.z * (2 / sums[2]).sqrt())


@value
class OutputChange(_Change):
    """Change of what a site returns, from one computed step to the next; known from the following step on.

    Attributes:
        each: whether all sites are told of, and not the first one alone.
    """

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    norm: Norm = "l1"
    each: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "site"
    against = "computed"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point()), None)


@value
class OutputSize(Signal):
    """Mean absolute value of what a site returns."""

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "site"
    against = "nothing"

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        return next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point()), None)

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        size = now.flatten(1).float().abs().sum(1)
        return torch.stack((size, torch.full_like(size, now[0].numel())))


@value
class FrameMotion(Signal):
    """How much of what a site returns moves from frame to frame, in [0, 1]: ``sum |p[1:] - p[:-1]| / (sum |p[1:]| + sum |p[:-1]|)``
    (AdaCache's MoReg). None for pictures, and where it is not known how rows lie in frames."""

    where: Where  # pyright: ignore[reportIncompatibleVariableOverride]
    at = "site"
    against = "nothing"
    needs_grid = True

    def probe(self, module: Any, bound: Mapping[str, Any]) -> torch.Tensor | None:
        shown = next((t for t in tensors_of(bound.get(RETURNED)) if t.is_floating_point() and t.ndim >= 3), None)
        latent = bound[STEP].latent
        if shown is None or latent is None or latent.frames < 2:
            return None
        grid = Grid.of(latent, shown.shape[0], shown.shape[1], temporal=shown.shape[1] == latent.frames)
        return grid.film(shown) if grid is not None and grid.fits(shown) else None

    def sums(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        moved, lies = now.diff(dim=1).abs(), now[:, 1:].abs() + now[:, :-1].abs()
        return torch.stack((moved.flatten(1).float().sum(1), lies.flatten(1).float().sum(1)))

    def change(self, sums: torch.Tensor) -> torch.Tensor:
        return change_of(sums)
