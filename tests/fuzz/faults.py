"""Faults, put in on purpose: an exception, NaN, a write, a lack of memory at a place drawn at random, and spoiled plan files.

After each, nothing may be left: no hook, no tensor, no wrong picture.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import omnicache
from omnicache.api import Caching
from omnicache.plan import Plan
from omnicache.runtime.streams import tensors_of

from .oracle import Shown, close, kept, law, looks, reach, same, whole
from .worlds import Act, Case, Pipe, cases


class Broken(Exception):
    pass


@dataclass(frozen=True)
class Fault:
    """What happens, at which module (a share of all of them), and at which call of it in the run.

    ``what`` is "raise", "nan" (in its output), "write in" or "write out" (to its input or output), or "memory" (the allocation of
    that number that the library makes).
    """

    what: str = "raise"
    module: float = 0.5
    call: int = 0


def _whats() -> tuple[str, ...]:
    return ("raise", "nan", "write in", "write out", "memory")


def faults() -> st.SearchStrategy[Fault]:
    return st.builds(Fault, st.sampled_from(_whats()), st.floats(0, 1, exclude_max=True), st.integers(0, 5))


@st.composite
def struck(draw: Callable[..., Any]) -> tuple[Case, Fault]:
    case, fault = draw(cases()), draw(faults())
    run = replace(whole(case.acts[0].run), guidance="none", start=0)
    return replace(case, acts=(Act(run=run),), laws=()), fault


# --- putting them in -------------------------------------------------------------------------------------------------------


@dataclass
class Strike:
    """Where a fault has struck: the step, or -1."""

    step: int = -1
    now: int = -1


@contextlib.contextmanager
def injected(fault: Fault, model: nn.Module, strike: Strike, before: Callable[[], None]) -> Iterator[None]:
    """The fault, waiting. ``before`` is called as it strikes."""
    if fault.what == "memory":
        with Starved(fault.call, strike):
            yield
        return
    modules = list(model.modules())
    module, left = modules[int(fault.module * len(modules))], iter(range(fault.call, -(10**6), -1))

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        if fault.what in ("raise", "write in") and next(left) == 0:
            strike.step = strike.now
            before()
            if fault.what == "raise":
                raise Broken
            _spoil((args, kwargs))

    def leave(_: nn.Module, args: Any, out: Any) -> Any:
        if fault.what in ("nan", "write out") and next(left) == 0:
            strike.step = strike.now
            before()
            _spoil(out, torch.nan if fault.what == "nan" else 1.0)

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _spoil(where: Any, by: float = 1.0) -> None:
    """Writes to the first tensor that can be written to."""
    for t in tensors_of(where):
        if t.is_floating_point() and t.ndim >= 3 and 0 not in t.stride():
            t += by
            return


class Starved(TorchDispatchMode):
    """There is no memory for one allocation of the library's own; the model's are let pass."""

    def __init__(self, number: int, strike: Strike):
        super().__init__()
        self.left, self.strike = number, strike

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.strike.now >= 0 and func.overloadpacket.__name__ not in VIEWS and _is_ours():
            self.left -= 1
            if self.left == -1:
                self.strike.step = self.strike.now
                raise torch.OutOfMemoryError("no memory is left (a test)")
        return func(*args, **(kwargs or {}))


VIEWS = (
    *("detach", "alias", "view", "_unsafe_view", "expand", "select", "slice", "unbind", "t", "transpose", "permute", "split"),
    *(
        "resolve_conj",
        "resolve_neg",
        "unsqueeze",
        "squeeze",
        "as_strided",
        "lift_fresh",
        "_local_scalar_dense",
        "_reshape_alias",
        "add_",
        "sub_",
        "unflatten",
    ),
)


def _is_ours() -> bool:
    """Whether the nearest frame that is not torch's is the library's."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.split(".")[0] not in ("torch", "contextlib"):
            return name.startswith("omnicache")
        frame = frame.f_back
    return False


# --- what must hold --------------------------------------------------------------------------------------------------------


def check_fault(given: tuple[Case, Fault]) -> str:
    case, fault = given
    with warnings.catch_warnings(), case.mode():
        warnings.simplefilter("ignore")
        return _check(case, fault)


def _check(case: Case, fault: Fault) -> str:
    try:
        plan = replace(case.made(), steps=1.0)
        shown = Shown(case)
        before = looks(shown.pipe)
        unscathed = list(shown.steps())
        run = omnicache.enable(shown.pipe, plan)
    except omnicache.OmniCacheError:
        return "refused"
    strike, watched = Strike(), []
    outs = _broken_run(shown, run, fault, strike, watched)
    if strike.step < 0:
        run.disable()
        return "missed"
    _law_of_the_run(fault, strike, outs, unscathed, run)
    held = sum(s.bytes() for s in run.sessions)
    law(held == 0, "11 (after the fault", held, "bytes are held)")
    told = {id(v) for s in run.sessions for r in s.trace.records for v in r.signals.values()}
    left = [t.shape for t in (ref() for ref in watched) if t is not None and id(t) not in told]
    law(not left, "11 (tensors outlive the fault)", left)
    notes = list(run.trace.notes)
    again = list(shown.steps())
    twin = Shown(case)
    with omnicache.cache(twin.pipe, plan) as fresh:
        wanted = list(twin.steps())
    # A step that gave NaN once is taken for a failed proof: from then on fewer blocks are passed over.
    known = any("is read outside" in n for n in (*notes, *run.trace.notes, *fresh.trace.notes))
    law(known or all(map(same, again, wanted)), "3 (a run after the fault is other than a twin's)")
    run.disable()
    after = looks(shown.pipe)
    law(after == before, "2 (something is left)")
    law(all(map(same, shown.steps(), unscathed)), "2 (draws otherwise afterwards)")
    return fault.what


def _broken_run(shown: Shown, run: Caching, fault: Fault, strike: Strike, watched: list[weakref.ref[Tensor]]) -> list[Tensor]:
    outs: list[Tensor] = []

    def before() -> None:
        watched.extend(weakref.ref(t) for t in reach(kept(run), Tensor))

    def count(step: int) -> None:
        strike.now = step

    with injected(fault, shown.pipe.transformer, strike, before):
        try:
            outs.extend(shown.steps(count))
        except Broken:
            law(fault.what == "raise", "2 (another fault raised)")
    return outs


def _law_of_the_run(fault: Fault, strike: Strike, outs: list[Tensor], unscathed: list[Tensor], run: Caching) -> None:
    """The input stands still, so that every step but the one that was struck must give what the plain model gives."""
    if fault.what == "raise":
        return
    law(len(outs) == len(unscathed), "2 (the run did not go on)")
    marks = run.trace.computed
    if fault.what == "memory":
        law(any("memory" in n for n in run.trace.notes), "0 (no memory, and no note)", run.trace.notes)
        law(set(marks[strike.step :]) == {"#"}, "4 (reused without memory)", marks)
        law(all(map(same, outs[strike.step :], unscathed[strike.step :])), "1 (no memory, and another picture)")
        return
    learned = marks[strike.step] != "."  # what went wrong in a computed step may be reused later, as the model itself gave it
    for i, (out, plain) in enumerate(zip(outs, unscathed, strict=True)):
        if i != strike.step and (not learned or marks[i] == "#" or i < strike.step):
            law(close(out, plain, 1e-7), f"8 ({fault.what} at step {strike.step}, and step {i} of {marks} is wrong)")


# --- plan files ------------------------------------------------------------------------------------------------------------

BIG = "@big@"
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 0.5, 10**400, BIG, "", "#.#", "x" * 5000, [], {}, [[]], {"is": "float", "of": "nan"}),
    *({"is": "float"}, {"is": "float", "of": {}}, {"is": "float", "of": "inf"}, {"is": None}, {"is": ["Hold"]}, {"is": {}}),
    *({"is": "os.system", "of": "exit 1"}, {"is": "__import__('os').system('exit 1')"}, {"is": "Plan"}, {"is": "object"}),
)
EVIL = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "shutil.rmtree")


@dataclass(frozen=True)
class Spoiled:
    """How a plan file is spoiled: "cut" at a share of its length, a "byte" flipped there, or a "value" put in its place."""

    how: str = "cut"
    where: float = 0.5
    by: int = 0


def spoiled() -> st.SearchStrategy[tuple[Case, Spoiled]]:
    how = st.builds(Spoiled, st.sampled_from(("cut", "byte", "value", "deep")), st.floats(0, 1), st.integers(0, 255))
    return st.tuples(cases(), how)


def check_file(given: tuple[Case, Spoiled]) -> str:
    case, spoil = given
    try:
        plan = case.made()
    except omnicache.OmniCacheError:
        return "refused"
    text = json.dumps(plan.to_json(), indent=1)
    found = loaded(_spoiled(text, spoil))
    if found is None:
        return "refused"
    law(spoil.how != "cut" or found == plan, "10 (a truncated file gave another plan)")
    law(written(Plan.from_json(found.to_json())) == written(found), "10 (what was read cannot be written)")
    with warnings.catch_warnings(), case.mode(), contextlib.suppress(omnicache.OmniCacheError):
        warnings.simplefilter("ignore")
        with omnicache.cache(pipe := Pipe(case), found):
            list(pipe.steps(whole(case.acts[0].run)))
    return "the plan" if found == plan else "another plan"


def written(plan: Plan) -> str:
    """Its text; no number is equal to itself that is none, so plans are compared by that."""
    return json.dumps(plan.to_json())


def hostile(text: str) -> Iterator[bytes]:
    """A plan file with every hostile value at every place."""
    for at in range(len(list(_places(json.loads(text))))):
        for by in range(len(HOSTILE)):
            yield _with_value(text, at, by)


def _with_value(text: str, at: int, by: int) -> bytes:
    data = json.loads(text)
    holder, key = list(_places(data))[at]
    holder[key] = HOSTILE[by]
    return json.dumps(data).replace(f'"{BIG}"', "1e999").encode()


def loaded(content: bytes) -> Plan | None:
    """The plan in a file; None if it was refused. Anything but a refusal comes through."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.plan.json"
        path.write_bytes(content)
        with _watched() as evil:
            try:
                return Plan.load(path)
            except omnicache.OmniCacheError:
                return None
            finally:
                law(not evil, "10 (a plan file ran something)", evil)


def _spoiled(text: str, spoil: Spoiled) -> bytes:
    content = text.encode()
    at = int(spoil.where * (len(content) - 1))
    if spoil.how == "cut":
        return content[:at]
    if spoil.how == "byte":
        return content[:at] + bytes([content[at] ^ (spoil.by or 1)]) + content[at + 1 :]
    data = json.loads(text)
    at = int(spoil.where * (len(list(_places(data))) - 1))
    if spoil.how == "value":
        return _with_value(text, at, spoil.by % len(HOSTILE))
    holder, key = list(_places(data))[at]
    holder[key] = BIG
    depth = 10 ** (1 + spoil.by % 5)
    nested = '{"is": "Not", "a": ' * depth + "1" + "}" * depth if spoil.by % 2 else "[" * depth + "]" * depth
    return json.dumps(data).replace(f'"{BIG}"', nested).encode()


def _places(part: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of JSON, as its holder and the key."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield part, key
        yield from _places(value)


_evil: list[list[str]] = []


def _audit(event: str, args: Any) -> None:
    if _evil and event in EVIL:
        _evil[-1].append(event)


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """What is run meanwhile, if anything. Audit hooks stay for good, so there is one, which mostly sleeps."""
    if not _watched.__dict__.setdefault("hooked", False):
        sys.addaudithook(_audit)
        _watched.__dict__["hooked"] = True
    _evil.append([])
    try:
        yield _evil[-1]
    finally:
        _evil.pop()
