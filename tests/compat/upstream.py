"""Runs OmniCache on the pipelines of diffusers' own tests: ``python -m tests.compat.upstream --help``.

Each test class of a checkout brings a pipeline of tiny random components and the arguments of a call. What it would download is
made up (``standins``); the steps are raised to eight, so that there is something to reuse. Every class gets the same questions,
and one JSON line with the answers. Work is counted independently of OmniCache: every parameter-holding module that really runs
counts with its parameters.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import multiprocessing
import os
import random
import re
import sys
import time
import traceback
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import denoisers
from omnicache.models.discover import discover

STEPS = 8
SPOILED_AFTER = 25
"""Classes that share a process."""

QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "exact": ("fora", {"interval": 1, "granularity": "stack"}),
    "exact_deep": ("deepcache", {"interval": 1}),
    "static": ("fora", {"interval": 2, "granularity": "stack"}),
    "deep": ("deepcache", {"interval": 2}),
    "dynamic": ("teacache", {"threshold": 1e9}),
    "forecast": ("taylorseer", {"interval": 2, "warmup": 2}),
    "modules": ("fora", {"interval": 2}),
}
"""What is run, by the name of the answer. Of the exact ones it is asked that nothing changes, of the others that work is saved."""

Parts = dict[str, nn.Module]
Json = dict[str, Any]


# --- finding the classes ---------------------------------------------------------------------------------------------------


def find(tests: Path) -> list[str]:
    """``path::Class`` of every class that describes a pipeline, without importing it."""
    return [f"{path.relative_to(tests)}::{name}" for path in sorted(tests.glob("pipelines/*/test_*.py")) for name in _classes(path)]


def _classes(path: Path) -> list[str]:
    found: dict[str, list[ast.ClassDef]] = {}  # a later class may have the name of the one that it extends
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found.setdefault(node.name, []).append(node)

    def line(name: str) -> list[str]:
        """The class and all that it inherits from, as far as this file tells."""
        bases = [ast.unparse(b).rsplit(".", 1)[-1] for node in found.get(name, ()) for b in node.bases]
        return [name, *(up for base in bases if base != name for up in line(base))]

    def gives(name: str) -> bool:
        own = [n for up in line(name) for node in found.get(up, ()) for n in node.body]
        names = {n.name for n in own if isinstance(n, ast.FunctionDef)} | {
            ast.unparse(n.targets[0]) for n in own if isinstance(n, ast.Assign)
        }
        return {"pipeline_class", "get_dummy_components", "get_dummy_inputs"} <= names

    testers = [n for n in found if "PipelineTesterMixin" in line(n) and not n.endswith("Mixin")]
    spoken_for = {up for n in testers for up in line(n)}
    others = [n for n in found if n not in spoken_for and gives(n) and not spoken_for & set(line(n))]
    return [n for n in found if n in testers or n in others]


# --- one pipeline ----------------------------------------------------------------------------------------------------------


class Case:
    """A pipeline of tiny components, and its call."""

    def __init__(self, name: str):
        path, _, cls = name.partition("::")
        kind = getattr(import_module("tests." + path.removesuffix(".py").replace("/", ".")), cls)
        self.test = kind("get_dummy_components") if issubclass(kind, unittest.TestCase) else kind()
        self.left_out = ""
        try:
            if isinstance(self.test, unittest.TestCase):
                self.test.setUp()
        except BaseException as leaving:  # pytest's way to say that it does not want to run a test
            if type(leaving).__name__ != "Skipped":
                raise
            self.left_out = str(leaving)
        _seed()
        self.pipe = self.test.pipeline_class(**self.test.get_dummy_components())
        self.pipe.set_progress_bar_config(disable=True)
        if hasattr(self.pipe, "resolutions"):  # it draws pictures of one of these, whatever is asked for
            self.pipe.resolutions = [(64, 64)]
        self.parts: Parts = {n: m for n, m in self.pipe.components.items() if isinstance(m, nn.Module)}
        for part in self.parts.values():
            part.eval()

    def given(self) -> Json:
        """The test's own arguments."""
        _seed()
        takes = inspect.signature(self.test.get_dummy_inputs).parameters
        given = dict(self.test.get_dummy_inputs(**({"device": "cpu"} if "device" in takes else {})))
        known = inspect.signature(self.pipe.__call__).parameters
        if given.get("output_type") in (None, "pil") and "output_type" in known:
            given["output_type"] = "np"
        return given

    def longer(self) -> Json:
        """The same for enough steps: eight after what ``strength`` leaves out; lists of times give way to their number."""
        given = self.given()
        known = inspect.signature(self.pipe.__call__).parameters
        steps = math.ceil(STEPS / given.get("strength", 1.0)) if given.get("strength", 1.0) > 0 else STEPS
        for name in known:
            if re.fullmatch(r"(\w+_)?num_inference_steps", name):
                given[name] = steps
            elif name.endswith("num_inference_steps_list"):
                given[name] = [STEPS] * len(given.get(name) or known[name].default)
            elif name in ("timesteps", "sigmas", "intermediate_timesteps"):
                given[name] = None
        return given

    def run(self, call: Json) -> list[np.ndarray]:
        _seed()
        with torch.no_grad():
            if hasattr(self.test, "get_dummy_inversion_inputs"):  # an editing pipeline that first wants to see the picture
                seen = self.test.get_dummy_inversion_inputs("cpu")
                self.pipe.invert(**{**seen, "image": seen["image"][0]})
            return list(_arrays(self.pipe(**call)))

    def close(self) -> None:
        if isinstance(self.test, unittest.TestCase):
            self.test.tearDown()


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """Everything that can be compared in what a pipeline returned."""
    if isinstance(value, torch.Tensor):
        yield (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy().copy()
    elif isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _arrays(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _arrays(entry)
    elif hasattr(value, "getdata"):
        yield np.asarray(value)
    elif hasattr(value, "__dict__") and not callable(value):
        yield from _arrays(vars(value))


def _same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    def equal(x: np.ndarray, y: np.ndarray) -> bool:
        return x.shape == y.shape and np.array_equal(x, y, equal_nan=x.dtype.kind in "fc" and y.dtype.kind in "fc")

    return len(a) == len(b) and all(map(equal, a, b))


class Seen:
    """Calls, outputs and work of a pipeline's parts in one run."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.work: Counter[str] = Counter()
        self.outputs: dict[str, list[np.ndarray]] = {}

    def share(self, whole: Seen, name: str) -> float:
        return round(1 - self.work[name] / max(whole.work[name], 1), 4)


@contextmanager
def watched(parts: Parts, keep: tuple[str, ...] = ()) -> Iterator[Seen]:
    """Count what runs; the outputs of the parts named in ``keep`` are kept."""
    seen, handles = Seen(), []
    for name, part in parts.items():

        def count(_: nn.Module, __: Any, name: str = name) -> None:
            seen.calls[name] += 1

        def take(_: nn.Module, __: Any, out: Any, name: str = name) -> None:
            seen.outputs.setdefault(name, []).extend(_arrays(out))

        handles.append(part.register_forward_pre_hook(count))
        if name in keep:
            handles.append(part.register_forward_hook(take))
        for module in part.modules():
            own = sum(p.numel() for p in module.parameters(recurse=False))
            if own:

                def add(_: nn.Module, __: Any, name: str = name, own: int = own) -> None:
                    seen.work[name] += own

                handles.append(module.register_forward_pre_hook(add))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# --- the questions ---------------------------------------------------------------------------------------------------------


def problem(error: BaseException) -> Json:
    """What went wrong, and where: the last lines of the traceback."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = [f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} {f.name}: {f.line}" for f in frames]
    return {"error": f"{type(error).__name__}: {error}"[:600], "trace": where}


def structure(model: nn.Module) -> Json:
    """What OmniCache finds in a denoiser, or why it finds nothing."""
    try:
        found = discover(model)
    except OmniCacheError as refusal:
        return {"class": type(model).__name__, "family": None, "refusal": str(refusal)}
    except Exception as error:
        return {"class": type(model).__name__, "family": None, **problem(error)}
    kinds = Counter(s.kind for s in found.all)
    return {
        "class": type(model).__name__,
        "family": found.family,
        **{k: kinds[k] for k in ("block", "attention", "cross_attention", "mlp")},
        "deep": sum(len(s.modules) for s in found.deep(0)),
    }


def attributes(case: Case) -> list[Any]:
    """What must be as before once OmniCache is off."""
    things = [*case.parts.values(), getattr(case.pipe, "scheduler", None)]
    names = [sorted(vars(t)) for t in things if t is not None]
    return [
        names,
        [[*m.__dict__] for p in case.parts.values() for m in p.modules()],
        [list(p.state_dict()) for p in case.parts.values()],
    ]


def ask(name: str) -> Json:
    """All questions about one class."""
    answer: Json = {"name": name, "stage": "import"}
    try:
        case = Case(name)
    except BaseException as error:
        inside = any("get_dummy_components" in f.name for f in traceback.extract_tb(error.__traceback__))
        return answer | {"stage": "build" if inside or not isinstance(error, ImportError) else "import", **problem(error)}
    answer |= {"pipeline": type(case.pipe).__name__, "stage": "plain", "left_out": case.left_out}
    try:
        with watched(case.parts) as plain:
            first = case.run(case.longer())
    except Exception as error:
        answer |= problem(error)
        try:
            case.run(case.given())
            answer["as_given"] = True
        except Exception as other:
            answer |= {"as_given": False, "as_given_error": problem(other)}
        return answer
    stepping = tuple(n for n, calls in plain.calls.items() if calls >= STEPS // 2)
    answer |= {"stage": "denoisers", "calls": dict(plain.calls), "stepping": stepping}
    before = attributes(case)
    with watched(case.parts, keep=stepping) as plain:
        answer["twice"] = _same(first, case.run(case.longer()))
    answer["finite"] = all(np.isfinite(x).all() for x in first if x.dtype.kind == "f")
    try:
        models = denoisers(case.pipe)
    except OmniCacheError as refusal:
        return answer | {"refusal": str(refusal)}
    named = {n: m for n, m in case.parts.items() if any(m is d for d in models)}
    answer |= {"stage": "ran", "denoisers": {n: structure(m) for n, m in named.items()}}
    whole = sum(plain.work[n] for n in stepping)
    answer["uncached"] = {n: round(plain.work[n] / whole, 3) for n in stepping if n not in named}

    deep = any(d["family"] == "unet" for d in answer["denoisers"].values())
    for question, (method, options) in QUESTIONS.items():
        if "deep" in question and not deep:
            continue
        answer[question] = _question(case, named, plain, first, method, options, stepping)
    try:
        answer["restored"] = _same(first, case.run(case.longer())) and attributes(case) == before
    except Exception as error:
        answer["restored"] = problem(error)
    case.close()
    return answer


def _question(
    case: Case, named: Parts, plain: Seen, first: list[np.ndarray], method: str, options: Json, stepping: tuple[str, ...]
) -> Json:
    """One method: by part the share of work that was skipped and what happened at each step; or why there is no answer."""
    run = None
    try:
        with omnicache.cache(case.pipe, method, **options) as run, watched(case.parts, keep=stepping) as seen:
            out = case.run(case.longer())
    except OmniCacheError as refusal:
        return {"refusal": str(refusal)}
    except Exception as error:
        omnicache.disable(case.pipe)
        return problem(error)
    traces = {n: s.trace for n, m in named.items() for s in run.sessions if s.model.model is m}
    said: Json = {"skipped": {n: seen.share(plain, n) for n in named if plain.calls[n]}}
    if options.get("interval") == 1:
        outputs = all(_same(plain.outputs.get(n, []), seen.outputs.get(n, [])) for n in stepping)
        said = {"same": outputs and _same(first, out), "same_outputs": outputs}
    said["strips"] = {n: {str(b): t.strip(b) for b in t.branches()} for n, t in traces.items()}
    said["notes"] = {n: list(t.notes) for n, t in traces.items() if t.notes}
    if not all(np.isfinite(x).all() for x in out if x.dtype.kind == "f"):
        said["finite"] = False
    return said


# --- running them all ------------------------------------------------------------------------------------------------------


def serve(tests: Path, line: Connection) -> None:
    """In a process of its own: answers names until it gets an empty one."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    from tests.compat import standins

    standins.install()
    import diffusers
    import transformers

    diffusers.logging.set_verbosity(50)
    transformers.logging.set_verbosity(50)
    sys.modules["tests"].__path__ = [*sys.modules["tests"].__path__, str(tests)]
    while name := line.recv():
        line.send(ask(name))


class Helper:
    """A process that answers, replaced when it hangs, dies or has answered often."""

    def __init__(self, tests: Path, limit: float):
        self.tests, self.limit = tests, limit
        self.process: Any = None
        self.answered = 0

    def ask(self, name: str) -> Json:
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.line, theirs = context.Pipe()
            self.process, self.answered = context.Process(target=serve, args=(self.tests, theirs), daemon=True), 0
            self.process.start()
            theirs.close()
        self.line.send(name)
        began = time.monotonic()
        # The first answer of a process waits for its imports, too.
        if not self.line.poll(self.limit + (120 if self.answered == 0 else 0)):
            answer: Json = {"name": name, "stage": "timeout", "error": f"no answer within {self.limit:.0f} s"}
        else:
            try:
                answer = self.line.recv()
            except EOFError:
                self.process.join()
                answer = {"name": name, "stage": "crash", "error": f"the process ended with {self.process.exitcode}"}
        self.answered += 1
        if answer["stage"] in ("timeout", "crash") or self.answered >= SPOILED_AFTER:
            self.end()
        return answer | {"seconds": round(time.monotonic() - began, 1)}

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def verdict(answer: Json) -> str:
    """An answer in one line."""
    if answer["stage"] != "ran":
        return f"{answer['stage']}: {answer.get('error', answer.get('refusal', ''))}"

    def told(question: str) -> str:
        said = answer[question]
        if "same" in said:
            return "yes" if said["same"] else "NO"
        return " ".join(f"{n} {s:.0%}" for n, s in said["skipped"].items()) if "skipped" in said else said.get("error", "refused")

    return "; ".join(f"{q} {told(q)}" for q in QUESTIONS if q in answer) + f"; restored {answer['restored']}"


def main(
    tests: Annotated[Path, typer.Option(help="A checkout of diffusers, or its folder of tests.")],
    out: Annotated[Path, typer.Option(help="Where the answers go, one JSON line for each class.")],
    only: Annotated[str, typer.Option(help="Classes whose path::name has this regular expression in it.")] = "",
    shard: Annotated[str, typer.Option(help="Of so many parts, this one: 1/4.")] = "1/1",
    limit_seconds: Annotated[float, typer.Option(help="For each class.")] = 120,
    again: Annotated[bool, typer.Option(help="Also those that are answered already.")] = False,
) -> None:
    """Ask about the pipelines of diffusers' own tests. Can be stopped and started again; the last line of a class counts."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "DIFFUSERS_TEST_DEVICE": "cpu"}
    root = tests / "tests" if (tests / "tests").is_dir() else tests
    part, parts = map(int, shard.split("/"))
    done = {json.loads(line)["name"] for line in out.read_text().splitlines()} if out.exists() and not again else set()
    names = [n for i, n in enumerate(find(root)) if i % parts == part - 1 and re.search(only, n) and n not in done]
    helper = Helper(root, limit_seconds)
    with out.open("a") as file:
        for i, name in enumerate(names):
            answer = helper.ask(name)
            print(json.dumps(answer), file=file, flush=True)
            typer.echo(f"{i + 1}/{len(names)} {name} ({answer['seconds']} s) {verdict(answer)}")
    helper.end()


if __name__ == "__main__":
    typer.run(main)
