"""``omnicache-optimal`` with other methods inside its computed steps, searched with Optuna."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import combinations
from typing import Any

from omnicache.errors import OmniCacheError

Inside = Mapping[str, Mapping[str, Any]]
"""Methods with their options."""
INSIDE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "omnicache-md": {"token": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)},
    "cfg-cache": {"interval": (2, 3, 4), "start": (0.3, 0.0)},
}
"""What is tried inside, alone and together, with the values of its knobs from careful to bold: rows of a step that are alike, and
one branch of guidance."""
COUNT = 12
"""Compositions that are tried, at most."""
WIDER = 1.6
"""So many times the computed steps of the best plan without anything inside are tried: what is inside costs likeness."""


def boldest(name: str) -> dict[str, Any]:
    """The options with which a method inside would save most."""
    return {knob: values[-1] for knob, values in INSIDE[name].items()}


def compose(
    most: int, best: int, names: Sequence[str], score: Callable[[int, Inside], float | None], enough: Callable[[], bool]
) -> int:
    """Try compositions, each chosen by what the ones before it have scored: a tree-structured Parzen estimator with a fixed seed.

    Args:
        most: computed steps that can be.
        best: computed steps of the best plan with nothing inside.
        names: of methods of :data:`INSIDE`.
        score: of so many computed steps with methods inside; higher is better. None of what breaks: those methods are tried
            together no more.
        enough: whether to stop.

    Returns:
        How many there was no time for.

    Raises:
        OmniCacheError: Optuna is not installed.
    """
    try:
        optuna = import_module("optuna")
    except ImportError as missing:
        raise OmniCacheError('compositions are searched with optuna: pip install "omnicache[tune]"') from missing
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=COUNT // 2))
    most = min(most, max(round(WIDER * best), best + 2))
    ways = {" + ".join(some): some for count in range(1, len(names) + 1) for some in combinations(names, count)}
    broken: set[str] = set()
    while len(broken) < len(ways) and len(study.trials) < COUNT and not enough():
        trial = study.ask()
        way = trial.suggest_categorical("inside", list(ways))
        computed = trial.suggest_int("computed", min(best, most), most)
        inside = {
            name: {knob: trial.suggest_categorical(f"{name} {knob}", values) for knob, values in INSIDE[name].items()}
            for name in ways[way]
        }
        scored = score(computed, inside) if way not in broken else None
        if scored is None:
            broken |= {other for other, some in ways.items() if set(ways[way]) <= set(some)}
        study.tell(trial, scored, state=optuna.trial.TrialState.FAIL if scored is None else None)
    return COUNT - len(study.trials) if len(broken) < len(ways) else 0
