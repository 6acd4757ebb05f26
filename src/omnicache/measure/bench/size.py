"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much a comparison measures.

    Attributes:
        samples: of the settings that are looked at closely.
        first: samples of every setting.
        batch: drawn at once.
        pairs: timed, of the settings that are looked at closely; of every setting, one for each of its first batches.
        calibration: inputs to calibrate on.
        near: settings beside the frontier that are looked at closely, at most.
        most: values of a method's knob; None for all.
        minutes: that it may take, of this machine's time.
        closely: whether anything is looked at closely; otherwise ``samples`` should be ``first``.
    """

    samples: int = 256
    first: int = 8
    batch: int = 4
    pairs: int = 9
    calibration: int = 4
    near: int = 8
    most: int | None = None
    minutes: float = 57.0
    closely: bool = True


FULL = {"picture": Size(), "clip": Size(samples=64, first=2, batch=1, pairs=6, calibration=2)}
QUICK = {
    "picture": Size(samples=4, first=4, batch=2, calibration=2, most=2, minutes=4.0, closely=False),
    "clip": Size(samples=2, first=2, batch=1, calibration=1, most=1, minutes=4.0, closely=False),
}
