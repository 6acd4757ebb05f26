"""For all tests: one thread for torch, the same examples every time, and the option that runs every combination of the laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile(
    "omnicache", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("omnicache")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-combinations",
        action="store_true",
        help="laws over the product of methods, models, guidance and solvers, in place of a pairwise covering set",
    )
