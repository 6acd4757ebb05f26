"""The process of one contender, and of the uncached pipeline: both speak the same small protocol.

Only one of them works at a time, and whoever waits must not spin, so that nobody takes a core from who is being timed.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Setting
from omnicache.measure.peers.desk import serve
from omnicache.measure.peers.scene import Spec

PATIENCE = 3600.0
"""Seconds after which a process that does not answer is given up."""


class Refused(OmniCacheError):
    """A contender could not do what it was asked; the message is its own."""


class Gone(Refused):
    """Its process has ended, which may not happen another time."""


class Drawn(NamedTuple):
    """Seconds in the denoiser and of the whole call, and what was made: ``(n, 3, h, w)`` or ``(n, f, 3, h, w)`` in [0, 1]."""

    inside: float
    whole: float
    made: torch.Tensor


class Worker:
    """A process that draws, with nothing or with one contender's settings.

    Args:
        spec: what is drawn.
        module: of the contender; None for the uncached pipeline.
        log: the file that its prints go to.
    """

    def __init__(self, spec: Spec, module: str | None, log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, spec, module, log), daemon=True)
        with _environment(OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(spec.threads), HF_HUB_OFFLINE="1"):
            self._process.start()
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def settings(self) -> list[Setting]:
        """What is tried of the contender.

        Raises:
            Refused: it does not apply to the model.
        """
        return self._ask("settings")

    def use(self, setting: Setting | None) -> None:
        """Begin anew with a fresh pipeline, and put a setting onto it."""
        self._ask("use", setting)

    def draw(self, which: str, start: int, stop: int) -> Drawn:
        """Of the ``"tuning"`` or ``"held"`` inputs."""
        inside, whole, made = self._ask("draw", which, start, stop)
        return Drawn(inside, whole, torch.from_numpy(made))

    @property
    def alive(self) -> bool:
        """Whether the process is there to be asked."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process."""
        with suppress(OSError, ValueError):  # it may have ended already
            self._line.send(None)
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._line.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str, *given: Any) -> Any:
        try:
            self._line.send((what, given))
        except OSError:
            raise Gone("Its process has ended.") from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._line.poll(PATIENCE):
                self._process.kill()
                raise Gone(f"Its process gave no answer for {PATIENCE / 60:.0f} minutes.")
            well, answer = self._line.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise Gone(f"Its process ended by itself (exit code {self._process.exitcode}).") from None
        if not well:
            raise Refused(answer)
        return answer


@contextmanager
def _environment(**wanted: str) -> Any:
    """Variables for a process that is about to start."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
