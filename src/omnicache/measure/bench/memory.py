"""What a plan holds at larger pictures."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import denoisers
from omnicache.measure.footprint import footprint
from omnicache.measure.task import Task
from omnicache.plan import Plan

TIMES = (1, 2, 4)
"""Times the length of a side that the model was trained on."""


def held(task: Task, plan: Plan, side: int) -> list[int | None]:
    """Bytes that a plan holds for one sample, at each of ``TIMES`` the ``side`` (pixels); None where the model does not run so."""
    found: list[int | None] = []
    for times in TIMES:
        try:
            with _sized(task, side * times, times) as call, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a plan was calibrated at another size: only what it holds is asked
                found.append(footprint(task.pipe, task.inputs[0].call, plan, **call).bytes)
        except (OmniCacheError, RuntimeError, ValueError):
            found.append(None)
    return found


@contextmanager
def _sized(task: Task, side: int, times: int) -> Iterator[dict[str, Any]]:
    """Arguments that ask for pictures of this side. A pipeline that takes no size goes by its denoiser's, which is then changed and
    put back."""
    taken = inspect.signature(task.pipe.__call__).parameters
    if "height" in taken and "width" in taken:
        yield {**task.settings, "height": side, "width": side}
        return
    model = denoisers(task.pipe)[0]
    config: Any = model.config
    usual = config.sample_size
    model.register_to_config(sample_size=usual * times)  # pyright: ignore[reportCallIssue]
    try:
        yield dict(task.settings)
    finally:
        model.register_to_config(sample_size=usual)  # pyright: ignore[reportCallIssue]
