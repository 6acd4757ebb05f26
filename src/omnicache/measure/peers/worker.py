"""The process of one contender, and of the uncached pipeline: both speak the same small protocol.

Only one of them works at a time, and whoever waits must not spin, so that nobody takes a core from who is being timed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Setting, Worn, contender
from omnicache.measure.peers.scene import Scene, Spec
from omnicache.measure.stopwatch import Stopwatch

PATIENCE = 3600.0
"""Seconds after which a process that does not answer is given up."""


class Refused(OmniCacheError):
    """A contender could not do what it was asked; the message is its own."""


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
        self._process = context.Process(target=_serve, args=(theirs, spec, module, log), daemon=True)
        with _environment(OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(spec.threads), HF_HUB_OFFLINE="1"):
            self._process.start()
        theirs.close()
        self._answer()

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
        try:
            self._line.send(None)
        except (OSError, ValueError):
            pass
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
            raise Refused("Its process has ended.") from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._line.poll(PATIENCE):
                self._process.kill()
                raise Refused(f"Its process gave no answer for {PATIENCE / 60:.0f} minutes.")
            well, answer = self._line.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise Refused(f"Its process ended by itself (exit code {self._process.exitcode}).") from None
        if not well:
            raise Refused(answer)
        return answer


class Desk:
    """What the process can be asked."""

    def __init__(self, spec: Spec, module: str | None):
        self.scene, self.contender = Scene(spec), None if module is None else contender(module)
        self.worn = Worn()

    def settings(self) -> Sequence[Setting]:
        assert self.contender is not None
        if self.contender.neutral is not None:
            self._check_neutral(self.contender.neutral)
        return list(self.contender.settings(self.scene))

    def use(self, setting: Setting | None) -> None:
        self.worn.off()
        self.worn = Worn()
        self.scene.load()
        if setting is not None:
            self._put(setting.options)

    def draw(self, which: str, start: int, stop: int) -> tuple[float, float, np.ndarray]:
        with self.worn.around(), Stopwatch(self.scene.denoiser) as watch:
            began = time.perf_counter()
            made = self.scene.draw(which, start, stop)
            whole = time.perf_counter() - began
        return watch.seconds, whole, made.contiguous().numpy()

    def _put(self, options: Mapping[str, Any]) -> None:
        assert self.contender is not None
        self.worn = self.contender.put(self.scene, options)
        self.scene.task.settings |= self.worn.call
        self.scene.tuning.settings |= self.worn.call

    def _check_neutral(self, options: Mapping[str, Any]) -> None:
        plain = self.draw("tuning", 0, 1)[2]
        self._put(options)
        found = self.draw("tuning", 0, 1)[2]
        self.use(None)
        off = float(np.abs(plain - found).max())
        if not off < 1e-2:
            raise OmniCacheError(
                f"Set to save nothing, it still changes the pictures (a value in [0, 1] by {off:.2g}): it takes this model for "
                "another one, and no setting of it can be trusted here."
            )


def _serve(line: Connection, spec: Spec, module: str | None, log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)  # what peers print belongs neither among results nor into a progress bar
    os.dup2(file, 2)
    torch.set_num_threads(spec.threads)
    desk: Desk | None = None

    def opened() -> None:
        nonlocal desk
        desk = Desk(spec, module)

    line.send(_tried(opened))
    while desk is not None:
        try:
            asked = line.recv()
        except EOFError:
            break
        if asked is None:
            break
        what, given = asked
        line.send(_tried(getattr(desk, what), *given))


def _tried(do: Callable[..., Any], *given: Any) -> tuple[bool, Any]:
    try:
        return True, do(*given)
    except OmniCacheError as no:
        return False, str(no)
    except Exception as broken:  # a peer raises what it likes; none of it may end the comparison
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        said = " ".join(str(broken).split())
        return False, f"{type(broken).__name__}: {said[:300]}{'…' if len(said) > 300 else ''}"


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
