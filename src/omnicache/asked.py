"""What to type next, so that it can be pasted: in the words of the command that is running, or in those that a plan is made of."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.registry import METHODS

FILE = "my.plan.json"


@dataclass(frozen=True)
class Asked:
    """How a plan was asked for.

    Attributes:
        pipe: what a command was given as the pipeline; from Python, a word that stands for it.
        plan: the words by which a command was given the plan, ``("-m", "taylorseer", "-o", "interval=4")``; none from Python.
        settings: further words that the same run needs, ``("--steps", "20")``.
        saved: the file in which the command leaves the plan, where its words do not say all of it.
        closely: whether this is the close look already, which need not be proposed.
    """

    pipe: str = "PIPELINE"
    plan: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    saved: str = ""
    closely: bool = False

    def command(self, verb: str, *words: str) -> str:
        """A command on the pipeline."""
        return shlex.join(["omnicache", verb, self.pipe, *words])

    def look(self, plan: Plan) -> str:
        """What looks at the plan closely, as the subject of a sentence."""
        words = ("-m", self.saved) if self.saved else self.plan or named(plan)
        saved = "" if words else f'after `run.plan.save("{FILE}")`, '
        return f"{saved}`{self.command('doctor', *(words or ('-m', FILE)), *self.settings)}`"

    @property
    def file(self) -> str | None:
        """The plan file that a command was given."""
        return next((word for word in self.plan[1:2] if word.endswith(".json")), None)

    def carried(self, steps: int) -> str:
        """The plan for another number of steps, in Python."""
        if self.file is not None:
            return f'omnicache.Plan.load("{self.file}").for_steps({steps}).save("{FILE}")'
        return f"{'plan' if self.plan else 'run.plan'}.for_steps({steps})"

    def option(self, name: str, value: Any) -> str:
        """An option of the plan's method with another value."""
        if self.plan and self.file is None:
            return f"-o {name}={_word(value)}"
        return f"{name}={json.dumps(value) if isinstance(value, str) else _word(value)}"

    def limit(self, memory: str) -> str:
        """Another limit of memory."""
        return f'--memory "{memory}"' if self.plan else f'guards=Guards(memory="{memory}")'


def named(plan: Plan) -> tuple[str, ...]:
    """The words that give a command this very plan by its method's name; none where it must be given the file."""
    entry = METHODS.get(plan.method)
    if entry is None:
        return ()
    usual = {o.name: o.default for o in entry.options}
    try:
        given = {k: json.dumps(v) for k, v in plan.options.items() if k in usual and v != usual[k]}
        if entry.plan(**{k: json.loads(text) for k, text in given.items()}) != plan:
            return ()
    except (OmniCacheError, TypeError):  # an option is no plain value, or belongs to a calibration
        return ()
    return ("-m", plan.method, *(word for k in given for word in ("-o", f"{k}={_word(plan.options[k])}")))


def _word(value: Any) -> str:
    """A value as the command line reads it."""
    if isinstance(value, str):
        return value
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else json.dumps(value)
