from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnicache.calibrate.layers.replay import Replay
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.runtime.session import Session


def image_errors(pipe: Any, call: Mapping[str, Any], plan: Plan) -> list[float]:
    """What reuse at each step adds to the error of the final latent (HarmoniCa's lambda): ``mean((z_n - z_(n-1))^2)``.

    ``z_n`` is the final latent when ``plan`` acts at the steps up to ``n`` and everything is computed afterwards. A step at which
    it reuses nothing adds exactly nothing. Costs about half as many evaluations as the run has steps, squared.

    Args:
        call: arguments of the pipeline's call.
        plan: a table that computes step 0.
    """
    with Replay(pipe) as replay:
        session = Session(discover(replay.model), plan, pipe)
        try:
            tape = replay.record(call)
        finally:
            session.detach()
        total, errors = len(tape.latents), [0.0]
        before = replay.restart(tape, 1)[-1]
        for n in range(1, total):
            # What was given out up to step n is played back, and the rest is computed.
            now = replay.restart(tape, n + 1)[-1] if n + 1 < total else tape.latents[-1]
            errors.append(float((now - before).square().mean()))
            before = now
    return errors


__all__ = ["image_errors"]
