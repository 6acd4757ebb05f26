"""What happened in a run: one record for each evaluation, and sentences about what was not gained and why."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from omnicache import words
from omnicache.guards import human_bytes
from omnicache.policy import Seen, Signal
from omnicache.runtime.step import Step


@dataclass
class Record:
    """One evaluation of the denoiser. Sites are counted, not steps: a plan may compute some and reuse others."""

    step: Step
    computed: int = 0
    reused: int = 0
    partial: int = 0
    checked: bool = False
    redone: bool = False
    rehearsals: int = 0
    error: float | None = None
    signals: Mapping[Signal, torch.Tensor | None] = field(default_factory=dict)

    def begin_anew(self) -> None:
        """The evaluation is run again: what was counted so far does not hold."""
        self.computed = self.reused = self.partial = 0

    @property
    def mark(self) -> str:
        """``#`` computed, ``.`` reused, ``o`` partly computed, ``?`` reused and checked."""
        if self.reused == 0 and self.partial == 0:
            return "#"
        if self.checked:
            return "?"
        return "." if self.computed == 0 and self.partial == 0 else "o"


@dataclass
class Trace:
    """A run of one plan: printed, it says what was computed, what was kept, and what stood in the way."""

    method: str = "none"
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    peak_bytes: int = 0
    """The most bytes held at once on the model's device."""
    predicted_bytes: int = 0
    """What was expected of that when the first step had shown the sizes."""
    thrift: str = ""
    """What was given up to stay within the memory that is allowed."""
    wanted_bytes: int = 0
    """What would have been held at most if nothing had been given up; 0 if nothing was."""
    held_back: str = ""
    """What kept the plan from reusing what its triggers would have reused: "run" (the run, or its rest, could not be cached),
    "memory" (the limit) or "sites" (nothing else is known to be at fault); "" if nothing did."""
    number: int = 1
    """Which of its session's runs it is, from 1 on."""
    seconds: float = 0.0
    timed: bool = True
    """False where an accelerator did the work: nothing waits for it, so the seconds are those of launching."""
    seconds_by_mark: dict[str, list[float]] = field(default_factory=dict)

    def add(self, record: Record, seconds: float, on_host: bool) -> None:
        """One evaluation more, and what it took."""
        self.records.append(record)
        self.timed &= on_host
        self.seconds += seconds
        self.seconds_by_mark.setdefault(record.mark, []).append(seconds)

    def note(self, sentence: str, first: bool = False) -> None:
        """Said once, however often it happens; ``first``: before all others."""
        if sentence not in self.notes:
            self.notes.insert(0 if first else len(self.notes), sentence)

    @property
    def reused(self) -> bool:
        """Whether anything was reused, if only in part."""
        return any(r.reused or r.partial for r in self.records)

    def branches(self) -> list[str | int]:
        return list(dict.fromkeys(r.step.branch for r in self.records))

    def strip(self, branch: str | int | None = None) -> str:
        """One character an evaluation of ``branch`` (default: the first seen)."""
        names = self.branches()
        which = branch if branch is not None else (names[0] if names else 0)
        return "".join(r.mark for r in self.records if r.step.branch == which)

    @property
    def computed(self) -> str:
        return self.strip()

    @property
    def seconds_saved(self) -> float:
        """Estimate: what the steps not fully computed would have taken at the median time of a full one, less what they took."""
        full = sorted(self.seconds_by_mark.get("#", ()))
        if not full:
            return 0.0
        others = [t for mark, times in self.seconds_by_mark.items() if mark != "#" for t in times]
        return full[len(full) // 2] * len(others) - sum(others)

    @property
    def seconds_each(self) -> dict[str, float]:
        """Median seconds of the evaluations of each mark."""
        return {mark: statistics.median(times) for mark, times in self.seconds_by_mark.items()}

    @property
    def speedup(self) -> float | None:
        """Estimate: the time of all evaluations at the median of a computed one, over what they took; None if it is not known."""
        full = self.seconds_each.get("#")
        return full * len(self.records) / self.seconds if full is not None and self.timed and self.seconds > 0 else None

    def seen(self) -> Seen:
        """What triggers are shown of it: the evaluations of the first branch."""
        names = self.branches()
        mine = [r for r in self.records if names and r.step.branch == names[0]]
        return Seen(
            tuple(r.step for r in mine),
            tuple(r.signals for r in mine),
            tuple(r.error for r in mine),
            tuple(r.mark == "#" for r in mine),
        )

    def told(self, runs: int = 1) -> str:
        """What is printed of it; ``runs``: how many there were of its session."""
        if not self.records:
            return f"{self.method}: nothing ran yet." + "".join(f"\n  {n}" for n in self.notes)
        took = f" in {words.seconds(self.seconds)}" if self.timed else ""
        which = "" if runs < 2 else f", the last of {runs} runs" if self.number == runs else f", run {self.number} of {runs}"
        lines = [f"{self.method}{which}: {len(self.records)} evaluations of the denoiser{took}"]
        for name in self.branches():
            strip = self.strip(name)
            full = strip.count("#")
            lines.append(f"  {strip}  branch {name}: {full} of {len(strip)} computed")
        lines.append(f"  {self._saved()}at most {human_bytes(self.peak_bytes)} kept")
        lines += [f"  {n}" for n in self.remarks]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.told()

    @property
    def remarks(self) -> list[str]:
        """Its notes, after what was given up for the memory that is allowed."""
        if not self.thrift:
            return self.notes
        first = "Nothing was reused, for want of memory. " * (self.held_back == "memory")
        return [
            first + self.thrift + f" All of it would be {human_bytes(self.wanted_bytes)}." * bool(self.wanted_bytes),
            *self.notes,
        ]

    def _saved(self) -> str:
        """What reuse has saved, by an estimate."""
        if not self.reused:
            return "nothing saved by reuse; "
        if self.speedup is None:
            return ""
        saved = f"{words.seconds(abs(self.seconds_saved))} {'saved' if self.seconds_saved >= 0 else 'lost'}"
        return f"by its own computed steps about {saved}, {self.speedup:.2f} times as fast; "
