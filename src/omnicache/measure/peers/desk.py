"""What a contender's process does when it is asked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnicache.errors import OmniCacheError
from omnicache.measure.peers.contender import Setting, Worn, contender
from omnicache.measure.peers.scene import Scene, Spec
from omnicache.measure.stopwatch import Stopwatch
from omnicache.now import now


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
            began = now()
            made = self.scene.draw(which, start, stop)
            whole = now() - began
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


def serve(line: Connection, spec: Spec, module: str | None, log: Path) -> None:
    """Answer over ``line`` until None or the end comes: a tuple of whether it went well, and the answer or a sentence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it, who then closes the line
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
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


def _leave_with(parent: BaseProcess) -> None:
    """Whoever is in the middle of minutes of work does not hear that the line was closed, and would disturb what comes next."""
    parent.join()
    os._exit(1)


def _tried(do: Callable[..., Any], *given: Any) -> tuple[bool, Any]:
    try:
        return True, do(*given)
    except OmniCacheError as no:
        return False, str(no)
    except Exception as broken:  # a peer raises what it likes; none of it may end the comparison
        traceback.print_exc()
        sys.stderr.flush()
        return False, _sentence(broken)


def _sentence(broken: Exception) -> str:
    """What was raised, and by which line: the contender's own error is all that there is to say about it."""
    said, at = " ".join(str(broken).split()), traceback.extract_tb(broken.__traceback__)[-1]
    where = f"{'/'.join(Path(at.filename).parts[-2:])}, line {at.lineno}"
    return f"It raises {type(broken).__name__} here ({where}): {said[:300]}{'…' if len(said) > 300 else ''}"
