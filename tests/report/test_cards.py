"""The cards of the methods: what they say, and that the page of them is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from typer.testing import CliRunner

import omnicache
from omnicache.cli import app
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.registry import METHODS, Choice, Range
from omnicache.report.cards import card, described, page

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mine():
    before = dict(METHODS)

    @omnicache.method(
        "mine",
        paper="A Paper of Mine (ICLR 2026, arXiv 2601.00001)",
        axes={"when": "now", "where": "here", "how": "hold", "fix": "-"},
        architectures="toys",
        off={"interval": 1},
        presets={"Toy": {"interval": 4}},
        sweep={"interval": (2, 3)},
    )
    def mine(
        interval: Annotated[int, Range(1, 9)] = 3,
        first: Annotated[int, Range(0)] | None = None,
        last: Annotated[float | None, Range(None, 2.5)] = None,
        kind: Annotated[str, Choice(("a", "b"))] = "a",
        shares: tuple[Annotated[float, Range(0, 0.5)], ...] = (),
        plain: bool = True,
    ) -> Plan:
        """Does something.

        Args:
            interval: one step in so many,
                with a second line.
            first, last: steps of which ``first`` is one.
            kind: a | b.
        """
        return Plan("mine")

    yield METHODS["mine"]
    METHODS.clear()
    METHODS.update(before)


def test_a_card_says_all_that_the_registry_knows(mine):
    lines = card(mine).splitlines()
    assert lines[0] == "## mine" and "Does something." in lines
    for line in (
        "- **Paper:** A Paper of Mine (ICLR 2026, arXiv 2601.00001)",
        "- **Axes:** Compute when: now. At: here. Else: hold.",
        "- **Applies to:** toys",
        "- **Switched off by:** interval=1",
        "- **Calibration:** none",
        "- **Compared at:** interval = 2, 3",
        "- **On Toy:** interval=4, unless asked otherwise",
        "| `interval` | 3 | 1 to 9 | One step in so many, with a second line. |",
        "| `first` | None | 0 or more, or None | `first`, `last`: steps of which `first` is one. |",
        "| `last` | None | 2.5 or less, or None | See `first`. |",
        "| `kind` | `a` | `a`, `b` | A \\| b. |",
        "| `shares` | none | several: 0 to 0.5 |  |",
        "| `plain` | True | True, False |  |",
        "  title = {A Paper of Mine},",
        "  eprint = {2601.00001},",
    ):
        assert line in lines, line


def test_a_calibrated_method_tells_how_and_with_which_options():
    said = card(omnicache.methods()["omnicache-trajectory"])
    assert 'needed: `omnicache.calibrate(pipe, inputs, "omnicache-trajectory")`' in said
    assert "| `reuse` | 0.5 | 0 to 10000 | Share of the steps to reuse, or their number if above 1. |" in said
    assert "| `inputs` |" not in said


@pytest.mark.parametrize("name", sorted(n for n, m in METHODS.items() if m.build.__module__.startswith("omnicache.methods.")))
def test_every_option_is_described(name):
    entry = omnicache.methods()[name]
    about = described(entry.build)
    assert set(about) <= {option.name for option in entry.options}, "an argument is described that there is not"
    assert len(entry.options) < 2 or set(about) == {option.name for option in entry.options}
    assert card(entry).startswith(f"## {name}\n")


def test_the_page_of_the_methods_is_up_to_date():
    """``make docs`` writes it."""
    code = "import sys; from omnicache.report.cards import page; sys.stdout.write(page())"  # free of what tests have registered
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == made, "run: make docs"


def test_the_page_leaves_out_what_the_user_has_registered(mine):
    assert "## mine" not in page() and "[taylorseer](#taylorseer)" in page()


def test_the_command_prints_a_card_or_its_json():
    run = CliRunner().invoke
    assert run(app, ["methods", "fora"]).stdout.strip() == card(omnicache.methods()["fora"]).strip()
    found = json.loads(run(app, ["methods", "teacache", "--json"]).stdout)
    assert (
        found["name"] == "teacache"
        and found["off"] == {"threshold": "-inf"}
        and found["sweep"] == {"reuse": [0.3, 0.4, 0.5, 0.6, 0.7]}
    )
    listed = run(app, ["methods"]).stdout
    assert "omnicache methods NAME" in listed
    wrong = run(app, ["methods", "forra"])
    assert isinstance(wrong.exception, OmniCacheError) and "Did you mean 'fora'" in str(wrong.exception)
