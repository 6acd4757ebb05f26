from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.gates.mix import Mix, Weigh
from omnicache.errors import OmniCacheError


def second_steps(total: int) -> tuple[int, ...]:
    """The steps that reuse what the step before them has computed (Learning-to-Cache, LazyDiT).

    Counted down from ``total - 1``, full steps have odd numbers; the first step has nothing to reuse.
    """
    return tuple(n for n in range(1, total) if (total - 1 - n) % 2 == 0)


def share_of_second_steps(method: str, reuse: float, total: int) -> float:
    """The share to reuse at every second step, so that it is ``reuse`` of the whole run.

    Raises:
        OmniCacheError: that is more than there is.
    """
    most = len(second_steps(total)) / total
    if reuse > most:
        raise OmniCacheError(
            f"{method}: of {total} steps a share of {most:.2f} at most can be reused; reuse={reuse} was asked for."
        )
    return reuse / most


def in_pairs(
    loop: Loop,
    call: Mapping[str, Any],
    mix: Mix,
    weigh: Callable[[int], Weigh],
    learn: Callable[[int, Any, Any], None],
) -> None:
    """One uncached run, in which every second step is evaluated with mixed modules, too.

    A full step fills the cache. At the step after it the denoiser runs twice on the same latents, as it is and mixed, and the run
    goes on with the former.

    Args:
        weigh: gives the gates for a step.
        learn: told ``(step, mixed output, true output)``.
    """
    gated = set(second_steps(loop.total))

    def answer(step: int, number: int, evaluate: Callable[[], Any]) -> Any:
        mix.branch = number
        if step not in gated:
            with mix.keeping():
                return evaluate()
        truth = evaluate()
        with mix.mixing(weigh(step)):
            out = evaluate()
            learn(step, out, truth)
        return truth

    loop.run(call, answer)
