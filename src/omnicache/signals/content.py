from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from omnicache.models.grid import Grid
from omnicache.policy import value
from omnicache.runtime.seen import PEEKED, STEP, moving
from omnicache.schema import Choice, Range
from omnicache.signals.modulated import ModulatedInputChange


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
        elif (grid := Grid.of(step.latent, found.shape[0], found.shape[1])) is not None and grid.fits(found):
            film = grid.film(found)
            axes = tuple(axis for axis in (1, 2, 3) if film.shape[axis] > 1)
        else:
            return None
        power = self.power if self.power is not None else 3.0 if step.latent.frames > 1 else 2.0
        a, b = step.mix
        return wiener(film, axes, a, b, power)


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
