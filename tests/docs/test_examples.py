"""The documentation is true: its code runs, its tables agree with the package, the files that it names exist.

A block with ``no-run: why`` after ``python`` is not run. Blocks of one page share a namespace, as in a notebook, and functions
named ``test_...`` in them are called. Runs are cut to twelve steps, calibrations to one input and searches to two, so that a page
takes seconds.
"""

from __future__ import annotations

import re
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import omnicache
from omnicache import zoo
from omnicache.policy import VALUES
from omnicache.registry import METHODS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MADE = ("docs/images/", "src/omnicache/zoo/")
"""What scripts make may be missing in a checkout."""

BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.M | re.S)


def code_of(page: Path) -> list[str]:
    """The page's blocks, each behind as many empty lines as stand before it, so that tracebacks name the page's lines."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        note = match[1].strip()
        assert not note or re.fullmatch(r"no-run: .+", note), f"{page.name}: say why in ```python no-run: why, not {note!r}"
        if not note:
            found.append("\n" * (text[: match.start(2)].count("\n")) + match[2])
    return found


def any_pipeline() -> Any:
    """The shipped model as a pipeline that takes a prompt, for code that says ``pipe`` and loads none."""
    pipe: Any = zoo.load("emoji")

    class Prompted(type(pipe)):
        def __call__(self, prompt: Any, num_inference_steps: int = 12, generator: Any = None) -> Any:
            return super().__call__([12], num_inference_steps=num_inference_steps, generator=generator)

    pipe.__class__ = Prompted
    return pipe


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Methods and values that the code registers are gone afterwards, and what it writes is not in the repository."""
    methods, values = dict(METHODS), dict(VALUES)
    monkeypatch.chdir(tmp_path)
    yield
    for table, before in ((METHODS, methods), (VALUES, values)):
        table.clear()
        table.update(before)  # type: ignore[arg-type]


def run(path: Path, blocks: list[str], monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    module.__dict__.update(given)
    whole, search = omnicache.calibrate, omnicache.tune
    short = {"methods": "omnicache-optimal", "folder": "tuned", "progress": False, "budget": 0}
    monkeypatch.setattr(omnicache, "tune", lambda pipe, inputs, **more: search(pipe, inputs[:2], **more, **short))
    monkeypatch.setattr(omnicache, "calibrate", lambda pipe, inputs, method, **more: whole(pipe, inputs[:1], method, False, **more))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="OmniCache")  # "nothing was reused" and the like
        warnings.filterwarnings("ignore", message="OmniCache: .* is missed on inputs")  # of a search by one input
        for block in blocks:
            exec(compile(re.sub(r"num_inference_steps=\d+", "num_inference_steps=12", block), str(path), "exec"), module.__dict__)
        for name, thing in list(module.__dict__.items()):
            if name.startswith("test_"):
                thing()
    return module.__dict__


@pytest.mark.parametrize("page", [p for p in PAGES if code_of(p)], ids=lambda p: p.name)
def test_code_on_a_page_runs(page: Path, clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(page, code_of(page), monkeypatch, pipe=any_pipeline())
    assert "." in made["run"].computed, "the last run reused nothing"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_an_example_runs(example: Path, clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(example, [example.read_text(encoding="utf-8")], monkeypatch)
    assert "." in made["run"].computed, "the last run reused nothing"


def test_the_readme_lists_the_methods() -> None:
    rows = {}
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| `([\w-]+)`( \*)? \| (.+) \| (.+) \| (.+) \| (.+) \| (.*)\|$", line):
            rows[found[1]] = (bool(found[2]), *found.groups()[2:6], found[7].strip())
    ours = {n: m for n, m in omnicache.methods().items() if m.build.__module__.startswith("omnicache.methods.")}
    for name, entry in ours.items():
        assert name in rows, f"README.md: add a row for {name}"
        axes = tuple(entry.axes.get(axis, "-") for axis in ("when", "where", "how", "fix"))
        assert rows[name][:5] == (entry.needs_calibration, *axes), name
        number = re.search(r"arXiv (\d+\.\d+)", entry.paper)
        assert (number[1] in rows[name][5]) if number else not rows[name][5], name
    assert set(rows) == set(ours)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [page.parent / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    named = [name for name in re.findall(r"`([\w./-]+/[\w.-]*)`", text) if "my_" not in name]
    for link in links:
        assert link.exists() or link.resolve().relative_to(ROOT).as_posix().startswith(MADE), link
    for name in named:
        places = (ROOT / name, ROOT / "src" / "omnicache" / name)
        assert any(p.exists() for p in places) or name.endswith(".html"), f"{page.name} names {name}"


def test_how_a_step_flows_names_every_file_of_the_runtime() -> None:
    text = (ROOT / "docs" / "how-a-step-flows.md").read_text(encoding="utf-8")
    for path in (ROOT / "src" / "omnicache" / "runtime").glob("[!_]*.py"):
        assert f"| `runtime/{path.name}` |" in text


def test_contributing_names_every_make_target() -> None:
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert targets is not None
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(targets[1].split()) == set(re.findall(r"^\| `make ([\w-]+)` \|", text, re.M))
