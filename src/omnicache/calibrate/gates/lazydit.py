"""LazyDiT: linear gates on what each module is given, learned on the pipeline's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.gates.lazy import LazyGates
from omnicache.calibrate.gates.loop import Loop, redrawn
from omnicache.calibrate.gates.loss import gated_loss
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.pairs import in_pairs, second_steps, share_of_second_steps
from omnicache.calibrate.gates.penalty import Penalty
from omnicache.calibrate.gates.rounds import Rounds
from omnicache.calibrate.layered import remeasure
from omnicache.calibrate.layers.batches import batches
from omnicache.plan import Plan
from omnicache.registry import Range


def calibrate_lazydit(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0.01, 0.5)] = 0.4,
    threshold: Annotated[float, Range(0, 1)] | None = None,
    penalty: Annotated[float, Range(0)] | None = None,
    iterations: Annotated[int, Range(1)] = 200,
    minutes: Annotated[float, Range(0.01)] = 5.0,
    rate: Annotated[float, Range(1e-6, 100)] | None = None,
    batch: Annotated[int, Range(1)] = 4,
    seed: int = 0,
) -> Plan:
    """Learn for each attention and MLP, at every second step, a linear gate on what it is given (LazyDiT, arXiv 2412.12444).

    As in the calibration of learning-to-cache, with gates that each sample asks by its own input, and ``penalty`` on their mean
    over samples.

    Args:
        reuse: share of all module calls of a run to reuse; half is what every second step can give.
        threshold: a sample is computed where its gate is at least this (the paper: 0.5); None takes the one that makes the share
            ``reuse`` on the calibration's samples.
        penalty: the paper's rho, for attention and MLP alike (1e-7 on DiT-XL/2); None finds the one that leads to ``reuse``.
        iterations, minutes: the fit ends with whichever comes first. Only a fit that ends by iterations repeats itself exactly.
        rate: of AdamW, in logits of a typical input (the paper: 0.0001 for each component, in 500 iterations); None lets a gate
            cross its range once in what iterations there are.
        batch: inputs that are drawn in one call.
        seed: of the noise.
    """
    from omnicache.methods.lazydit import lazydit

    loop, calls = Loop(pipe), batches(pipe, inputs, call, batch)
    modules = [site.modules[0] for site in gated_sites("lazydit", loop.model)]
    rounds, losses = Rounds(iterations, minutes, progress), list[list[float]]()
    total = loop.measure(calls[0])
    computed = 1 - share_of_second_steps("lazydit", reuse, total)
    price, gates = Penalty(penalty, computed), LazyGates(second_steps(total), len(modules))
    worth: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []

    def look(step: int, out: Any, truth: Any) -> None:
        worth.append(gates.worth(gated_loss(out, truth, gates.all(), 0.0)))

    def learn(step: int, out: Any, truth: Any) -> None:
        loss = gated_loss(out, truth, gates.all(), price.price)
        losses[-1].append(float(loss.detach()))
        seen.append(gates.all().detach().flatten().cpu())
        gates.learn(step, loss, rate or rounds.rate)

    with Mix(loop.model, modules).attached() as mix:
        rounds.first(lambda: in_pairs(loop, redrawn(calls[0], seed), mix, gates.looking, look))
        price.begin(torch.cat(worth))
        for i in rounds:
            losses.append([])
            seen.clear()
            in_pairs(loop, redrawn(calls[i % len(calls)], seed + 1 + i), mix, gates.weigh, learn)
            price.follow(float(torch.cat(seen).mean()), rounds.count)
        seen.clear()
        for one in calls:
            in_pairs(loop, one, mix, gates.weigh, lambda *_: seen.append(gates.all().detach().flatten().cpu()))
    if threshold is None:
        threshold = float(torch.cat(seen).double().quantile(1 - computed))
    marks = "".join("." if n in gates.steps else "#" for n in range(total))
    plan = lazydit(schedule=marks, gates=gates.weights(total), threshold=threshold)
    lazy = float((torch.cat(seen) < threshold).float().mean()) * len(gates.steps) / total
    told = {"loss": [sum(one) / len(one) for one in losses], "penalty": price.price, "reuse": lazy}
    return plan.with_measured(**told, **remeasure(pipe, calls, plan, 1))
