"""For all tests: one thread for torch, and the option that runs every combination of the laws."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-combinations",
        action="store_true",
        help="laws over the product of methods, models, guidance and solvers, in place of a pairwise covering set",
    )
