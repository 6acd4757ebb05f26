"""Every benchmark finds what it takes from the package."""

import importlib
from pathlib import Path

import pytest

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_it_imports(name):
    importlib.import_module(f"benchmarks.{name}")
