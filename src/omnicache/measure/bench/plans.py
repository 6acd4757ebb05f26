"""Plans of settings, calibrated where they are, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import omnicache
from omnicache import registry
from omnicache.kept.plans import kept_plan
from omnicache.measure.bench.setting import Setting
from omnicache.measure.task import Task
from omnicache.plan import Plan


class Plans:
    """Makes the plan of a setting for a task's pipeline. What was calibrated is kept in ``folder``, and so is what a calibration
    keeps by itself, where it has an option ``folder``."""

    def __init__(self, task: Task, inputs: int, folder: Path):
        self.task, self.folder = task, folder
        self.inputs = [one.call for one in task.others(inputs)]
        self._measured: dict[str, Any] = {}

    def of(self, setting: Setting, key: str) -> Plan:
        """The plan.

        Raises:
            OmniCacheError: the method does not apply to the pipeline; the message says why.
        """
        entry, path = registry.get(setting.method), self.folder / f"{key}.plan.json"
        if not entry.calibrates(setting.options):
            with omnicache.cache(self.task.pipe, setting.method, **setting.options) as run:
                return run.plan
        plan = kept_plan(path, lambda: self._calibrated(setting))
        with omnicache.cache(self.task.pipe, plan):
            return plan

    def _calibrated(self, setting: Setting) -> Plan:
        calibrate = registry.get(setting.method).calibrate
        assert calibrate is not None
        keeps = any(option.name == "folder" for option in registry.options_of(calibrate))
        more: dict[str, Any] = {"folder": self.folder / setting.method} if keeps else {}
        if (measures := registry.get(setting.method).measures) is not None:
            if setting.method not in self._measured:
                self._measured[setting.method] = measures(self.task.pipe, self.inputs, self.task.settings, False)
            more["measured"] = self._measured[setting.method]
        asked = {**setting.options, **more, **self.task.settings}
        return omnicache.calibrate(self.task.pipe, self.inputs, setting.method, progress=False, **asked)
