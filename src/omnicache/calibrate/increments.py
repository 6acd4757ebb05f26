"""What each block adds to its input, looked at along uncached runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.progress import progress as bar
from omnicache.models.map import Site
from omnicache.runtime.hook import Hook
from omnicache.runtime.streams import Args, Signature, Tensors, layout_by_shape, tensors_of

See = Callable[[int, int, int, Tensors, Tensors], None]
"""Told ``(step, site, place, inputs, outputs)`` of each call of a site. ``place`` is the same for calls that follow one another
from step to step: those of one guidance branch."""


def each_increment(
    loop: Loop,
    calls: Sequence[Mapping[str, Any]],
    sites: Sequence[Site],
    progress: bool,
    label: str,
    begin: Callable[[], None],
    see: See,
) -> None:
    """Run ``calls`` uncached and show what every site is given and gives. Sites whose output continues no input are left out.

    Args:
        begin: called before each run.
    """
    at = {"step": 0, "branch": 0}
    turns: dict[int, int] = {}

    def answer(step: int, number: int, evaluate: Callable[[], Any]) -> Any:
        at.update(step=step, branch=number)
        turns.clear()
        return evaluate()

    def handler(i: int, signature: Signature) -> Callable[..., Any]:
        def look(call: Callable[..., Any], args: Args, kwargs: dict[str, Any]) -> Any:
            bound = signature.bind(args, kwargs)
            given = {n: v.clone() for n, v in bound.items() if isinstance(v, torch.Tensor) and v.ndim >= 3}  # it may be written to
            out = call(*args, **kwargs)
            turn = turns[i] = turns.get(i, -1) + 1
            layout = layout_by_shape(tensors_of(out), given)
            if layout is not None:
                see(at["step"], i, 1000 * at["branch"] + turn, layout.read(given), tensors_of(out))
            return out

        return look

    hooks: list[Hook] = []
    try:
        for i, site in enumerate(sites):
            hooks.append(Hook(site.modules[0], handler(i, Signature(site.modules[0]))))
        with bar(label, len(calls), progress) as done:
            for call in calls:
                begin()
                loop.run(call, answer)
                done()
    finally:
        for hook in reversed(hooks):
            hook.remove()
