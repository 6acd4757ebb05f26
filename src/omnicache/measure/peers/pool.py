"""Processes that are kept, since starting one takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omnicache.measure.peers.scene import Spec
from omnicache.measure.peers.worker import Worker

MOST = 4
"""Processes at once, each with a model of its own in memory; whoever was asked longest ago goes first."""


class Pool:
    """The contenders' processes, each started when it is first asked for, and anew when it has died.

    Args:
        logs: folder for what they print.
        agreed: told each new one before anything is put on; raises if it cannot be used.
    """

    def __init__(self, spec: Spec, logs: Path, agreed: Callable[[Worker], None]):
        self.spec, self.logs, self.agreed = spec, logs, agreed
        self._workers: dict[str, Worker] = {}

    def of(self, module: str) -> Worker:
        """The process of a contender.

        Raises:
            Refused: it cannot be started, or draws something else than the uncached one.
        """
        worker = self._workers.pop(module, None)
        if worker is not None and not worker.alive:
            worker.close()
            worker = None
        if worker is None:
            while len(self._workers) >= MOST:
                self._workers.pop(next(iter(self._workers))).close()
            worker = Worker(self.spec, module, self.logs / f"{module.rpartition('.')[2]}.txt")
            try:
                self.agreed(worker)
            except BaseException:
                worker.close()
                raise
        self._workers[module] = worker  # now the last to go
        return worker

    def close(self) -> None:
        """End all of them."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
