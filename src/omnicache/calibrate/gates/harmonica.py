"""HarmoniCa: a table of modules and steps, learned along the path that its own reuse leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch

from omnicache.calibrate.gates.image_error import image_errors
from omnicache.calibrate.gates.loop import Loop, redrawn
from omnicache.calibrate.gates.loss import gated_loss
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.penalty import Penalty
from omnicache.calibrate.gates.rounds import Rounds
from omnicache.calibrate.gates.table import TableGates
from omnicache.calibrate.layered import remeasure
from omnicache.calibrate.layers.batches import batches
from omnicache.plan import Plan
from omnicache.registry import Range
from omnicache.runtime.streams import rebuild, tensors_of


def calibrate_harmonica(
    pipe: Any,
    inputs: Sequence[Any],
    call: dict[str, Any],
    progress: bool = True,
    *,
    reuse: Annotated[float, Range(0.01, 0.98)] = 0.5,
    threshold: Annotated[float, Range(0, 1)] | None = None,
    penalty: Annotated[float, Range(0)] | None = None,
    iterations: Annotated[int, Range(1)] = 200,
    minutes: Annotated[float, Range(0.01)] = 5.0,
    rate: Annotated[float, Range(1e-6, 100)] | None = None,
    refresh: Annotated[int, Range(0)] = 3,
    batch: Annotated[int, Range(1)] = 4,
    seed: int = 0,
) -> Plan:
    """Learn a gate for each attention and MLP at each step but the first (HarmoniCa, arXiv 2410.01723).

    One iteration is one run of the pipeline along the *student's* path. At each step the teacher computes everything on the
    student's latents and the gates learn from ``lambda_n * MSE + penalty * sum(gates)``; then the run goes on with what the student
    gave. No pictures are needed.

    Args:
        reuse: share of all module calls of a run to reuse.
        threshold: a module is reused where its gate is at most this (the paper: 0.1); None takes the lowest gates, as many as
            make the share ``reuse``.
        penalty: the paper's beta (7e-8 on DiT-XL/2 with 10 steps); None finds the one that leads to ``reuse``.
        iterations, minutes: the fit ends with whichever comes first. Only a fit that ends by iterations repeats itself exactly.
        rate: of AdamW (the paper: 0.01 for 20 000 iterations); None lets a gate cross its range once in what iterations there are.
        refresh: how often in a fit ``lambda_n`` is measured anew, the error that reuse at step n adds to the final latent. Less
            often in short fits, so that it takes a third of them at most. Before the first time all steps count alike.
        batch: inputs that are drawn in one call.
        seed: of the noise.
    """
    from omnicache.methods.harmonica import harmonica

    loop, calls = Loop(pipe), batches(pipe, inputs, call, batch)
    modules = [site.modules[0] for site in gated_sites("harmonica", loop.model)]
    rounds, losses = Rounds(iterations, minutes, progress), list[list[float]]()
    total = loop.measure(calls[0])
    price = Penalty(penalty, 1 - min(reuse * total / (total - 1), 1.0))
    gates = TableGates(range(1, total), len(modules), next(loop.model.parameters()).device)
    weights, limit = [1.0] * total, 0.1 if threshold is None else threshold
    worth: list[torch.Tensor] = []

    def hard() -> Plan:
        return replace(harmonica(schedule=gates.schedule(total, reuse, threshold)), min_steps=0)

    def look(step: int, out: Any, truth: Any) -> None:
        worth.append(gates.worth(step, gated_loss(out, truth, gates.soft(step), 0.0)))

    def learn(step: int, out: Any, truth: Any) -> None:
        loss = gated_loss(out, truth, gates.soft(step), price.price, weights[step])
        losses[-1].append(float(loss.detach()))
        gates.learn(step, loss, rate or rounds.rate)

    with Mix(loop.model, modules).attached() as mix:
        rounds.first(lambda: along_the_student(loop, redrawn(calls[0], seed), mix, gates, limit, look))
        price.begin(torch.stack(worth))
        often = rounds.spare(refresh, (total + 2) / 8)  # half a square of evaluations; a round has four for each step
        due = {(k + 1) * rounds.count // (often + 1) for k in range(often)}
        for i in rounds:
            losses.append([])
            drawn = redrawn(calls[i % len(calls)], seed + 1 + i)
            along_the_student(loop, drawn, mix, gates, limit, learn)
            price.follow(gates.computed(), rounds.count)
            if i + 1 in due:
                weights = refreshed(weights, image_errors(pipe, drawn, hard()), scaled=penalty is None)
    plan = harmonica(schedule=gates.schedule(total, reuse, threshold))
    told = {"gates": gates.table(total), "loss": [sum(one) / len(one) for one in losses], "penalty": price.price}
    return plan.with_measured(**told, weights=weights, **remeasure(pipe, calls, plan, 1))


def along_the_student(
    loop: Loop,
    call: Mapping[str, Any],
    mix: Mix,
    gates: TableGates,
    limit: float,
    learn: Callable[[int, Any, Any], None],
) -> None:
    """One run that goes on with what the mixed denoiser gives (Stepwise Denoising Training).

    What is kept is replaced by the mix where a gate is above ``limit``. The teacher leaves it alone.

    Args:
        learn: told ``(step, mixed output, true output)``.
    """

    def answer(step: int, number: int, evaluate: Callable[[], Any]) -> Any:
        mix.branch = number
        if step == 0:
            with mix.keeping():
                return evaluate()
        truth = evaluate()
        renewed = (gates.soft(step) > limit).tolist()
        with mix.mixing(gates.weigh(step), renewed.__getitem__):
            out = evaluate()
            learn(step, out, truth)
        return rebuild(out, tuple(t.detach() for t in tensors_of(out)))

    loop.run(call, answer)


def refreshed(before: Sequence[float], found: Sequence[float], scaled: bool) -> list[float]:
    """The weights of the steps' errors, from what was measured.

    A step at which nothing was reused tells nothing of its errors, and counts as much among the others as it did.

    Args:
        scaled: so that their mean is 1, which leaves a price that was found for other weights in its place.
    """
    known = [e for e in found[1:] if e > 0]
    if not known:
        return list(before)
    mean = sum(known) / len(known)
    usual = sum(before[1:]) / (len(before) - 1)
    made = [e if e > 0 else mean * b / usual for e, b in zip(found, before, strict=True)]
    unit = sum(made[1:]) / (len(made) - 1) if scaled else 1.0
    return [m / unit for m in made]
