"""What the laws are tested on: a table of methods with options, the tiny models, and which combinations to try."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from tests.tiny import KINDS, STEPS, Always, Pipe, drawn, evaluations, picture, sample
from torch import nn

import omnicache
from omnicache.plan import Plan
from omnicache.triggers import Every
from omnicache.weights import Weights

LAWS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11)
"""Those that are crossed with methods and models. 9, 12 and 13 are about predictors, kernels and methods of one's own."""

TRANSFORMERS = tuple(name for name, kind in KINDS.items() if kind.family == "transformer")
UNETS = tuple(name for name, kind in KINDS.items() if kind.family == "unet" and not kind.rare)
ANY = (*TRANSFORMERS, *UNETS)
TEXT = ("latte", "unet")
Found = TypeVar("Found")


def marked(rule: Callable[[int, int], bool]) -> Callable[[int], str]:
    """A strip by length, from a rule on the index and the length."""
    return lambda total: "".join("#" if rule(i, total) else "." for i in range(total))


full = marked(lambda i, n: True)
ends = marked(lambda i, n: i in (0, n - 1))
begin = marked(lambda i, n: i == 0)
none = marked(lambda i, n: False)
every_second = marked(lambda i, n: i % 2 == 0)
every_third = marked(lambda i, n: i % 3 == 0)
every_third_from_the_end = marked(lambda i, n: i == 0 or (n - 1 - i) % 3 == 0)


@dataclass(frozen=True)
class Row:
    """One method with options.

    Attributes:
        method, options: as a user would type them.
        kinds: the models it is for; it must refuse the others.
        where: whose calls it saves: "module" (attention and feed-forward), "stack" (blocks), "layers" (of U-Nets
            less than blocks), "deep", "denoiser" (the model itself), "guidance" (see its own tests) or "nothing"; "rows" if
            it calls all of them, for fewer rows.
        strip: its schedule by length of the run, worked out here by hand; None where features decide.
        least: options under which only what is forced is computed, and
        forced: that strip.
        share: of the sampler's steps that are run at all.
    """

    method: str
    options: Mapping[str, Any]
    kinds: Sequence[str]
    where: str
    strip: Callable[[int], str] | None
    least: Mapping[str, Any]
    forced: Callable[[int], str]
    share: float = 1.0
    answers: bool = False
    """Whether it works one branch of guidance out from the other, so that of two calls the second is not made,"""
    apart: bool = False
    """and the first one is always computed."""
    lossless: bool = False
    still: Mapping[str, Any] | None = field(default_factory=dict)
    """Options under which what does not change is kept exactly; None: none, it is changed on purpose."""
    mixes: bool = False
    """Whether what it leaves out of attention changes the rest, so that only feed-forward modules keep what stays the same."""

    bent: bool = False
    """Whether what it fills in is not what was computed, even where nothing changes, which only its other policies keep."""

    def plan(self, total: int, options: Mapping[str, Any] | None = None) -> Plan:
        """Calibrated methods get a schedule by hand, and carry half of the noise. Options that are functions are told the length of
        the run."""
        given = {**self.options, **(options or {})}
        given = {name: v(total) if callable(v) else v for name, v in given.items()}
        if self.method == "omnicache-trajectory":
            given["gamma"] = tuple(0.5 if m == "." else None for m in given["schedule"])
        return omnicache.methods()[self.method].plan(**given)

    def off(self, total: int) -> Plan:
        entry = omnicache.methods()[self.method]
        assert entry.off is not None, entry.off_reason
        return self.plan(total, {k: full(total) if k == "schedule" else v for k, v in entry.off.items()})


def _trajectory(n: int) -> str:
    return marked(lambda i, n: i < 2 or i % 3 == 1 or i == n - 1)(n)


_taylor = {"interval": 3, "warmup": 2, "order": 1}
_newton = {"interval": 3, "warmup": 3, "order": 2, "basis": "newton", "granularity": "module"}
_speca = {"threshold": 0.5, "decay": 0.1, "shortest": 1, "longest": 4}
_toca = {"interval": 3, "slope": 0.0, "ratio": 0.3, "step_slope": 0.0}
_pab = {"spatial": 2, "window": (-1.0, 2000.0)}
_chipmunk = {"interval": 3, "warmup": 1, "edge": 0, "random_keys": 0.1}
_sixth = marked(lambda i, n: i == 0 or (i - 1) % 6 == 0 or i >= n - 2)
_first2_and_last = marked(lambda i, n: i < 2 or i == n - 1)
_by_module = ("#.##.#.#.#", "##########", "##.#.##.#.", "#...#..#..", "##.#.##.#.", "#.##.#.#.#")


def _parts(n: int) -> tuple[str, ...]:
    """A table for six modules."""
    return tuple((2 * row)[:n] for row in _by_module)


def _gates(modules: int) -> Callable[[int], tuple[Weights, ...]]:
    """Gates of modules of width 16, by length of the run."""
    return lambda n: tuple(Weights(0.3 * drawn(n, 16, seed=700 + i)) for i in range(modules))


def _extrapolated(n: int) -> tuple[tuple[float, ...] | None, ...]:
    """Numbers of ``Multistep`` for the strip of the trajectory: a line through the last two outputs."""
    return tuple((0.0, 1.5, 0.0, -0.5, 0.0) if mark == "." else None for mark in _trajectory(n))


_second = marked(lambda i, n: i % 2 == 0)
_first2, _first3 = marked(lambda i, n: i < 2), marked(lambda i, n: i < 3)

ROWS: dict[str, Row] = {
    "none": Row("none", {}, ANY, "nothing", full, {}, full),
    "fewer-steps": Row("fewer-steps", {"ratio": 0.5}, ANY, "nothing", full, {"ratio": 0.3}, full, share=0.5),
    "fora": Row("fora", {"interval": 3}, ANY, "module", every_third_from_the_end, {"interval": 1000}, ends),
    "fora/stack": Row("fora", {"granularity": "stack", "count": "up"}, ANY, "stack", every_third, {"interval": 1000}, begin),
    "taylorseer": Row(
        "taylorseer",
        _taylor,
        ANY,
        "stack",
        marked(lambda i, n: i < 2 or (i - 1) % 3 == 0),
        {"interval": 1000},
        marked(lambda i, n: i < 2),
    ),
    "taylorseer/module": Row(
        "taylorseer", _newton, ANY, "module", marked(lambda i, n: i < 3 or (i - 2) % 3 == 0), {"interval": 1000}, _first3
    ),
    "teacache": Row("teacache", {"threshold": 0.4}, ANY, "stack", None, {"threshold": math.inf}, ends),
    "speca": Row("speca", _speca, TRANSFORMERS, "module", None, {"threshold": math.inf, "longest": 1000}, _first3),
    "speca/redo": Row(
        "speca", {**_speca, "redo": True}, TRANSFORMERS, "module", None, {"threshold": math.inf, "longest": 1000}, _first3
    ),
    "toca": Row(
        "toca",
        _toca,
        (*TRANSFORMERS, "unet"),
        "module",
        every_third_from_the_end,
        {"interval": 1000, "ratio": 0.0},
        ends,
    ),
    "toca/ramp": Row("toca", {"ratio": 0.3}, (*TRANSFORMERS, "unet"), "module", None, {"interval": 1000, "slope": 0.0}, ends),
    "hicache": Row(
        "hicache",
        {"interval": 3, "warmup": 2},
        ANY,
        "stack",
        marked(lambda i, n: i < 2 or (i - 1) % 3 == 0),
        {"interval": 1000},
        _first2,
    ),
    "foca/module": Row(
        "foca",
        {"interval": 3, "warmup": 2, "granularity": "module"},
        ANY,
        "module",
        marked(lambda i, n: i < 2 or (i - 1) % 3 == 0),
        {"interval": 1000},
        _first2,
    ),
    "first-block-cache": Row(
        "first-block-cache",
        {"threshold": 3.0, "longest": 2},
        TRANSFORMERS,
        "layers",
        None,
        {"threshold": math.inf, "longest": 1000},
        begin,
    ),
    "dbcache": Row(
        "dbcache",
        {"front": 1, "warmup": 2, "threshold": 3.0, "longest": 2, "order": 1},
        TRANSFORMERS,
        "layers",
        None,
        {"threshold": math.inf, "longest": 1000, "warmup": 1},
        begin,
    ),
    "pab": Row("pab", _pab, ANY, "layers", None, {"spatial": 1000}, begin),
    "delta-dit": Row("delta-dit", {"boundary": 0.5}, TRANSFORMERS, "layers", every_second, {"interval": 1000}, begin),
    "delta-dit/half": Row(
        "delta-dit", {"interval": 3, "span": 0.5, "boundary": 4}, TRANSFORMERS, "layers", every_third, {"interval": 1000}, begin
    ),
    "chipmunk": Row("chipmunk", _chipmunk, ANY, "rows", every_third, {"interval": 1000}, begin),
    "easycache": Row(
        "easycache", {"threshold": 0.5, "warmup": 2}, ANY, "denoiser", None, {"threshold": math.inf, "warmup": 2}, _first2_and_last
    ),
    "magcache": Row(
        "magcache",
        {"ratios": (1.0,) * 4, "longest": 2, "retain": 0.0},
        ANY,
        "stack",
        every_third,
        {"longest": 1000},
        begin,
    ),
    "seacache": Row("seacache", {"threshold": 0.4}, ANY, "stack", None, {"threshold": math.inf}, ends),
    "seacache/latent": Row(
        "seacache", {"threshold": 0.4, "of": "latent", "order": 1}, ANY, "stack", None, {"threshold": math.inf}, ends
    ),
    "adacache": Row("adacache", {"scale": 0.1}, ANY, "stack", None, {"scale": 1e-6}, _sixth),
    "foresight": Row(
        "foresight",
        {"scale": 20.0, "warmup": 3, "interval": 3},
        TRANSFORMERS,
        "layers",
        None,
        {"scale": 1e30, "interval": 1000, "warmup": 2},
        _first2,
    ),
    "ab-cache": Row(
        "ab-cache",
        {"interval": 3, "warmup": 2},
        ANY,
        "denoiser",
        marked(lambda i, n: i < 2 or i % 3 == 0),
        {"interval": 1000},
        _first2,
    ),
    "ab-cache/unit": Row(
        "ab-cache",
        {"interval": 3, "warmup": 2, "spacing": "unit"},
        ANY,
        "denoiser",
        marked(lambda i, n: i < 2 or i % 3 == 0),
        {"interval": 1000},
        _first2,
    ),
    "freqca": Row(
        "freqca",
        {"interval": 3, "warmup": 2},
        ANY,
        "stack",
        marked(lambda i, n: i < 2 or (i - 1) % 3 == 0),
        {"interval": 1000},
        _first2,
    ),
    "dicache": Row("dicache", {"threshold": 0.3}, TRANSFORMERS, "layers", None, {"threshold": math.inf, "warmup": 0.0}, ends),
    "deepcache": Row("deepcache", {"interval": 3}, UNETS, "deep", every_third, {"interval": 1000}, begin),
    "deepcache/1": Row("deepcache", {"interval": 3, "branch": 1}, UNETS, "deep", every_third, {"interval": 1000}, begin),
    "ertacache": Row("ertacache", {"schedule": _trajectory}, ANY, "denoiser", _trajectory, {"schedule": begin}, begin),
    "feb-cache": Row(
        "feb-cache",
        {"schedule": _trajectory, "scaling": "none"},
        (*TRANSFORMERS, "unet"),
        "module",
        _trajectory,
        {"schedule": begin},
        begin,
    ),
    "faster-diffusion": Row(
        "faster-diffusion", {"interval": 3, "noise": 0.0}, UNETS, "deep", every_third, {"interval": 1000, "noise": 0.0}, begin
    ),
    "omnicache-md": Row("omnicache-md", {"mlp": True}, (*TRANSFORMERS, "unet"), "rows", begin, {"token": 0.75}, begin, mixes=True),
    "omnicache-md/film": Row(
        "omnicache-md", {"token": 0.5, "frame": 0.34, "block": 0.4}, ("latte",), "rows", begin, {"token": 0.5}, begin, mixes=True
    ),
    "tomesd": Row("tomesd", {"redraw": False}, (*TRANSFORMERS, "unet"), "rows", none, {"ratio": 0.75}, none),
    "cfg-cache": Row(
        "cfg-cache",
        {"start": 0.0, "interval": 3, "phase": 0, "low_until": 0.5, "high_from": 0.5},
        ANY,
        "guidance",
        every_third,
        {"interval": 1000},
        begin,
        answers=True,
        apart=True,
        still={"low": 1.0, "high": 1.0},
    ),
    "fastercache": Row(
        "fastercache",
        {"start": 0.0, "cfg_start": 0.2, "cfg_interval": 3},
        ANY,
        "guidance",
        None,
        {"interval": 1000, "cfg_start": 0.0, "cfg_interval": 1000},
        begin,
        answers=True,
        still={"low": 1.0, "high": 1.0},
    ),
    "t-gate": Row(
        "t-gate", {"gate": 4, "interval": 2, "warmup": 0}, TEXT, "guidance", None, {"gate": 1}, begin, answers=True, still=None
    ),
    "t-gate/1": Row(
        "t-gate", {"gate": 4, "interval": 1, "after": 2}, TEXT, "guidance", None, {"gate": 1}, begin, answers=True, still=None
    ),
    "vcut": Row("vcut", {}, ("svd",), "guidance", begin, {}, begin, lossless=True),
    "vcut/paper": Row("vcut", {"mode": "paper", "gate": 2}, ("svd",), "guidance", _first2, {"gate": 1}, begin, still=None),
    "omnicache-trajectory": Row(
        "omnicache-trajectory", {"schedule": _trajectory}, ANY, "stack", _trajectory, {"schedule": begin}, begin
    ),
    "omnicache-optimal": Row(
        "omnicache-optimal",
        {"schedule": _trajectory, "weights": _extrapolated},
        ANY,
        "denoiser",
        _trajectory,
        {"schedule": begin, "weights": ()},
        begin,
    ),
    "omnicache-layered": Row(
        "omnicache-layered", {"schedule": _trajectory}, ANY, "layers", _trajectory, {"schedule": begin}, begin
    ),
    "learning-to-cache": Row("learning-to-cache", {"schedule": _second}, ANY, "module", _second, {"schedule": begin}, begin),
    "learning-to-cache/table": Row("learning-to-cache", {"schedule": _parts}, ("dit",), "layers", None, {"schedule": begin}, begin),
    "harmonica": Row("harmonica", {"schedule": _trajectory}, ANY, "module", _trajectory, {"schedule": begin}, begin),
    "block-caching": Row("block-caching", {"schedule": _trajectory}, ANY, "layers", _trajectory, {"schedule": begin}, begin),
    "lazydit": Row(
        "lazydit",
        {"schedule": _second, "gates": _gates(6)},
        ("dit",),
        "layers",
        None,
        {"schedule": begin, "threshold": 1.5},
        begin,
    ),
    "lazydit/joint": Row(
        "lazydit",
        {"schedule": _second, "gates": _gates(8)},
        ("sd3",),
        "layers",
        None,
        {"schedule": begin, "threshold": 1.5},
        begin,
    ),
    "fastcache": Row(
        "fastcache",
        {"maps": ((),) * 3, "threshold": 0.15, "motion": None},
        ("dit", "sd3"),
        "layers",
        None,
        {"threshold": math.inf},
        begin,
        bent=True,
    ),
    "omnicache-trajectory/module": Row(
        "omnicache-trajectory",
        {"schedule": _trajectory, "granularity": "module", "cutoff": 0.25, "switch": 6},
        ANY,
        "module",
        _trajectory,
        {"schedule": begin},
        begin,
    ),
}


@dataclass(frozen=True)
class Case:
    """One combination."""

    row: str
    kind: str
    guidance: str
    solver: str

    def __str__(self) -> str:
        return f"{self.row}-{self.kind}-{self.guidance}-{self.solver}"


@dataclass
class Subject:
    """A fresh model for a case, and how a user would draw with it: a DiT in one batched call by its real pipeline."""

    case: Case
    row: Row
    pipe: Pipe = field(init=False)
    target: Any = field(init=False)

    def __post_init__(self) -> None:
        self.pipe = Pipe(self.case.kind, self.case.solver)
        self.real = self.case.kind == "dit" and self.case.guidance == "batched"
        self.target = self.pipe.pipeline() if self.real else self.pipe

    @property
    def model(self) -> nn.Module:
        return self.pipe.model

    @property
    def total(self) -> int:
        """Evaluations of one branch in a run under the row's own options."""
        return self.length(self.row.share)

    def length(self, share: float) -> int:
        return evaluations(max(1, round(STEPS[self.case.solver] * share)), self.case.solver)

    def draw(self) -> torch.Tensor:
        return picture(self.target, self.case.solver) if self.real else self.sample()

    def sample(self, **options: Any) -> torch.Tensor:
        """By the plain loop, which lets one look on."""
        return sample(self.pipe, self.case.guidance, **options)

    def plan(self, options: Mapping[str, Any] | None = None) -> Plan:
        """The row's plan; for the real pipeline by calibration, where the method has one and must have it, and makes the same plan
        each time: the layered one times what it plans."""
        if self.real and options is None and self.row.method == "omnicache-trajectory":
            return calibrated(self.case.row, self.case.solver)
        return self.row.plan(self.pipe.total, options)

    def strip(self, plan: Plan) -> str | None:
        """The schedule that ``plan`` must show."""
        if self.real and self.row.method == "omnicache-trajectory":
            return str(plan.options["schedule"])
        return self.row.strip(self.total) if self.row.strip is not None else None


@functools.cache
def calibrated(row: str, solver: str) -> Plan:
    pipe = Pipe("dit", solver)
    options = {k: v for k, v in ROWS[row].options.items() if k in ("granularity", "cutoff")}
    call = {"num_inference_steps": STEPS[solver], "guidance_scale": 2.0, "output_type": "pt"}
    return omnicache.calibrate(pipe.pipeline(), [1, 2], ROWS[row].method, progress=False, reuse=0.5, **options, **call)


def always(plan: Plan) -> Plan:
    """The same plan with every step computed."""
    return replace(plan, policies=tuple(replace(p, when=Every(1) if p.fix else Always()) for p in plan.policies), steps=1.0)


def strips(run: Any) -> list[str]:
    """The strip of every branch of the newest run."""
    return [run.trace.strip(b) for b in run.trace.branches()]


def expected(case: Case, strip: str) -> set[str]:
    """The strips of all branches where ``strip`` is that of the reused ones."""
    return {strip, full(len(strip))} if ROWS[case.row].apart and case.guidance != "batched" else {strip}


def coarse(strip: str) -> str:
    """Computed or not: a step that is reused in part or checked is reused."""
    return strip.replace("o", ".").replace("?", ".")


# --- which combinations ----------------------------------------------------------------------------------------------------


def cases_of(row: str) -> list[Case]:
    return [Case(row, k, g, s) for k in ROWS[row].kinds for g in KINDS[k].guidances() for s in STEPS]


def all_cases() -> list[Case]:
    return [c for row in ROWS for c in cases_of(row)]


def pairs(law: int, case: Case) -> list[tuple[Any, Any]]:
    return list(itertools.combinations((("law", law), case.row, case.kind, case.guidance, case.solver), 2))


@functools.cache
def cover(seed: int = 0) -> dict[int, list[Case]]:
    """A set in which every two of law, method, model, guidance and solver meet, and every method meets every law twice."""
    dice = random.Random(seed)
    seen: Counter[Any] = Counter()
    chosen: dict[int, list[Case]] = {law: [] for law in LAWS}

    def take(law: int, candidates: list[Case]) -> None:
        dice.shuffle(candidates)
        free = [c for c in candidates if c not in chosen[law]]
        best = max(free, key=lambda c: sum(1 / (1 + seen[p]) for p in pairs(law, c)))
        chosen[law].append(best)
        seen.update(pairs(law, best))

    for law, row in [(law, row) for law in LAWS for row in ROWS] * 2:
        take(law, cases_of(row))
    for law, case in [(law, c) for law in LAWS for c in all_cases()]:
        if not all(seen[p] for p in pairs(law, case)):
            take(law, [case])
    return chosen
