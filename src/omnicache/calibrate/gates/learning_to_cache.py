"""Learning-to-Cache: which modules to reuse at every second step, learned on the pipeline's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch

from omnicache.calibrate.gates.loop import Loop, redrawn
from omnicache.calibrate.gates.loss import gated_loss
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.pairs import in_pairs, second_steps, share_of_second_steps
from omnicache.calibrate.gates.penalty import Penalty
from omnicache.calibrate.gates.rounds import Rounds
from omnicache.calibrate.gates.table import TableGates
from omnicache.calibrate.layered import remeasure
from omnicache.calibrate.layers.batches import batches
from omnicache.plan import Plan
from omnicache.registry import Range


def calibrate_learning_to_cache(
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
    """Learn a gate for each attention and MLP at every second step (Learning-to-Cache, arXiv 2406.01733).

    One iteration is one run of the pipeline. A full step fills the cache; at the step after it the denoiser runs twice on the same
    latents, as it is and with every module mixed, ``gate * fresh + (1 - gate) * kept``, and the gates learn from
    ``MSE + penalty * sum(gates)``. The latents are those of uncached runs, where the paper noises pictures of its data set.

    Args:
        reuse: share of all module calls of a run to reuse; half is what every second step can give.
        threshold: a module is reused where its gate is at most this (the paper: 0.1); None takes the lowest gates, as many as
            make the share ``reuse``.
        penalty: the paper's lambda (1e-6 to 5e-6 on DiT-XL/2); None finds the one that leads to ``reuse``.
        iterations, minutes: the fit ends with whichever comes first. Only a fit that ends by iterations repeats itself exactly.
        rate: of AdamW (the paper: 0.001 for 50 000 iterations); None lets a gate cross its range once in what iterations there are.
        batch: inputs that are drawn in one call.
        seed: of the noise.
    """
    from omnicache.methods.learning_to_cache import learning_to_cache

    loop, calls = Loop(pipe), batches(pipe, inputs, call, batch)
    modules = [site.modules[0] for site in gated_sites("learning-to-cache", loop.model)]
    rounds, losses = Rounds(iterations, minutes, progress), list[list[float]]()
    total = loop.measure(calls[0])
    price = Penalty(penalty, 1 - share_of_second_steps("learning-to-cache", reuse, total))
    gates = TableGates(second_steps(total), len(modules), next(loop.model.parameters()).device)
    worth: list[torch.Tensor] = []

    def look(step: int, out: Any, truth: Any) -> None:
        worth.append(gates.worth(step, gated_loss(out, truth, gates.soft(step), 0.0)))

    def learn(step: int, out: Any, truth: Any) -> None:
        loss = gated_loss(out, truth, gates.soft(step), price.price)
        losses[-1].append(float(loss.detach()))
        gates.learn(step, loss, rate or rounds.rate)

    with Mix(loop.model, modules).attached() as mix:
        rounds.first(lambda: in_pairs(loop, redrawn(calls[0], seed), mix, gates.weigh, look))
        price.begin(torch.stack(worth))
        for i in rounds:
            losses.append([])
            in_pairs(loop, redrawn(calls[i % len(calls)], seed + 1 + i), mix, gates.weigh, learn)
            price.follow(gates.computed(), rounds.count)
    plan = learning_to_cache(schedule=gates.schedule(total, reuse, threshold))
    told = {"gates": gates.table(total), "loss": [sum(one) / len(one) for one in losses], "penalty": price.price}
    return plan.with_measured(**told, **remeasure(pipe, calls, plan, 1))
