"""One measured run of the demo."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from omnicache.report import _human

REFERENCES = ("fewer-steps", "none")


@dataclass(frozen=True)
class Run:
    """One measured run; a number that was not measured is None, the PSNR of equal pictures is infinite."""

    name: str
    method: str
    options: str
    seconds: float | None
    speedup: float | None
    spread: tuple[float, float] | None
    compute: float | None
    psnr: float | None
    ssim: float | None
    accuracy: float | None
    cache_bytes: float | None
    computed: str
    note: str

    @property
    def is_cache(self) -> bool:
        """Whether this is a method to judge, and not a reference to judge it by."""
        return self.method not in REFERENCES

    @property
    def is_idle(self) -> bool:
        """Whether a method has reused nothing, so that no speed is its own."""
        return self.is_cache and bool(self.computed) and not self.computed.strip("#")

    @classmethod
    def all(cls, result: dict[str, Any]) -> list[Run]:
        """The runs of a demo's result: methods from the fastest on, then fewer steps, then the run that caches nothing."""
        raw = result.get("runs") or []
        names = [str(one.get("label") or one["method"]) for one in raw]
        runs = [cls._read(one, name, names.count(name) > 1) for one, name in zip(raw, names, strict=True)]
        seen: Counter[str] = Counter()
        unique = []
        for run in runs:  # two runs of one name and the same options still need a name each
            seen[run.name] += 1
            unique.append(run if seen[run.name] == 1 else cls(**{**vars(run), "name": f"{run.name} ({seen[run.name]})"}))
        group = {"fewer-steps": 1, "none": 2}
        return sorted(unique, key=lambda run: (group.get(run.method, 0), -(run.speedup or 0)))

    @classmethod
    def _read(cls, raw: dict[str, Any], name: str, ambiguous: bool) -> Run:
        options = ", ".join(
            f"{key}={_human.plain(value)}" for key, value in (raw.get("options") or {}).items() if value is not None
        )
        between = raw.get("speedup_spread")
        compute, psnr, ssim = _number(raw, "compute_fraction"), _number(raw, "psnr"), _number(raw, "ssim")
        if psnr is None and raw.get("psnr") is None and (raw["method"] == "none" or (ssim or 0) >= 1 or (compute or 0) >= 1):
            psnr = math.inf  # JSON has no infinity: equal pictures come as null
        return cls(
            name=f"{name} @ {options}" if ambiguous and options else name,
            method=str(raw["method"]),
            options=options,
            seconds=_number(raw, "seconds"),
            speedup=_number(raw, "speedup"),
            spread=(float(min(between)), float(max(between))) if between else None,
            compute=compute,
            psnr=psnr,
            ssim=ssim,
            accuracy=_number(raw, "class_accuracy"),
            cache_bytes=_number(raw, "cache_bytes"),
            computed=str(raw.get("computed") or ""),
            note=str(raw.get("note") or ""),
        )


def _number(raw: dict[str, Any], key: str) -> float | None:
    value = raw.get(key)
    return None if value is None or math.isnan(float(value)) else float(value)
