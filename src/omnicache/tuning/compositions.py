"""``omnicache-optimal`` with other methods inside its computed steps, searched with Optuna."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from omnicache.errors import OmniCacheError

INSIDE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "omnicache-md": {"token": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)},
    "cfg-cache": {"interval": (2, 3, 4), "start": (0.0, 0.3)},
}
"""What is tried inside, with the values of its knobs: rows of a step that are alike, and one branch of guidance."""
COUNT = 12
"""Compositions that are tried, at most."""
WIDER = 1.6
"""So many times the computed steps of the best plan without anything inside are tried: what is inside costs likeness."""


def compose(most: int, best: int, score: Callable[[int, str, dict[str, Any]], float | None], enough: Callable[[], bool]) -> int:
    """Try compositions, each chosen by what the ones before it have scored: a tree-structured Parzen estimator with a fixed seed.

    Args:
        most: computed steps that can be.
        best: computed steps of the best plan with nothing inside.
        score: of so many computed steps with a method and its options inside; higher is better. None of one that
            cannot be: its method is tried no more.
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
    names = list(INSIDE)
    while names and len(study.trials) < COUNT and not enough():
        trial = study.ask()
        name = trial.suggest_categorical("inside", list(INSIDE))
        computed = trial.suggest_int("computed", min(best, most), most)
        options = {knob: trial.suggest_categorical(f"{name} {knob}", values) for knob, values in INSIDE[name].items()}
        if name not in names:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        scored = score(computed, name, options)
        if scored is None:
            names.remove(name)
        study.tell(trial, scored, state=optuna.trial.TrialState.FAIL if scored is None else None)
    return COUNT - len(study.trials) if names else 0
