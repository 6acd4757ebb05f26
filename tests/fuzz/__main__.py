"""``python -m tests.fuzz``: many cases, or many faults, in batches that each have a seed of their own.

Batch ``n`` is always the same cases, so a run that was broken off goes on with ``--from``, and ``--shard 2/4`` takes every fourth
batch. What violates a law is made as small as it will go and printed as a line to paste.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.utils import logging
from hypothesis import HealthCheck, Phase, given, seed, settings

BATCH = 100


def main() -> int:
    asked = _arguments()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    if asked.case is not None:
        print(_again(asked.case))
        return 0
    counts = {"cases": asked.cases, "faults": asked.faults, "files": asked.faults // 2}
    bad = {why: case for kind, count in counts.items() for why, case in _all(kind, count, asked).items()}
    print(f"\n{sum(counts.values())} asked for, {len(bad)} laws violated.")
    return 1 if bad else 0


def _all(kind: str, count: int, asked: argparse.Namespace) -> dict[str, str]:
    """The laws that are violated, and for each the smallest case."""
    part, of = (int(n) for n in asked.shard.split("/"))
    batches = [n for n in range(asked.first, asked.first + -(-count // BATCH)) if n % of == part % of]
    seen: Counter[str] = Counter()
    bad: dict[str, str] = {}
    began = time.perf_counter()
    for done, number in enumerate(batches, 1):
        outcomes, violated = batch(number, kind=kind)
        seen.update(outcomes)
        for why, case in violated:
            if len(case) < len(bad.get(why, case + " ")):
                bad[why] = case
                print(f'\n{why}\n  python -m tests.fuzz --case "{case}"\n', flush=True)
        took = (time.perf_counter() - began) / max(sum(seen.values()), 1)
        print(f"{kind} {number} ({done} of {len(batches)}): {dict(seen)}, {took:.2f} s each", flush=True)
    return bad


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=1_000, help="and half as many spoiled files")
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first batch of 100")
    parser.add_argument("--shard", default="1/1", help="which part of the batches, as in 1/2")
    parser.add_argument("--case", help="one case, as printed")
    return parser.parse_args()


def kinds() -> dict[str, tuple[Any, Callable[[Any], str]]]:
    """What can be drawn, and how it is judged."""
    from . import faults, oracle, worlds

    return {
        "cases": (worlds.cases(), oracle.check),
        "faults": (faults.struck(), faults.check_fault),
        "files": (faults.spoiled(), faults.check_file),
    }


def batch(number: int, size: int = BATCH, kind: str = "cases") -> tuple[Counter[str], list[tuple[str, str]]]:
    """What became of the cases of a batch, and the smallest that violates a law, with that law."""
    drawn, check = kinds()[kind]
    outcomes: Counter[str] = Counter()
    violated: list[tuple[str, str]] = []

    @seed(number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @given(drawn)
    def go(case: Any) -> None:
        try:
            outcomes[check(case)] += 1
        except Exception as bad:
            violated.append((f"{type(bad).__name__}: {bad}"[:300], repr(case)))
            raise

    with _quiet():
        try:
            go()
        except Exception:
            outcomes["violated"] += 1
    return outcomes, violated[-1:]  # the last one that was tried is the smallest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hypothesis prints what it found; it is printed here, in another way."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def names() -> dict[str, Any]:
    """What the ``repr`` of a case may speak of."""
    from omnicache.correctors import NoiseCorrection
    from omnicache.policy import VALUES, Policy

    from . import faults, models, worlds

    ours: dict[str, Callable[..., Any]] = {"Toy": models.Toy, "Real": models.Real, "NoiseCorrection": NoiseCorrection}
    ours |= {"Case": worlds.Case, "Act": worlds.Act, "Run": worlds.Run, "Policy": Policy}
    ours |= {"Fault": faults.Fault, "Spoiled": faults.Spoiled}
    return {**VALUES, **ours, "inf": float("inf"), "nan": float("nan")}


def _again(text: str) -> str:
    found = eval(text, names())
    kind = "cases" if not isinstance(found, tuple) else "faults" if type(found[1]).__name__ == "Fault" else "files"
    return kinds()[kind][1](found)


if __name__ == "__main__":
    sys.exit(main())
