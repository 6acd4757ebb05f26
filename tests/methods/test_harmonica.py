"""HarmoniCa (arXiv 2410.01723): the tests that its reference asks for."""

import pytest
import torch

import omnicache
from omnicache.calibrate.gates.harmonica import along_the_student, refreshed
from omnicache.calibrate.gates.image_error import image_errors
from omnicache.calibrate.gates.loop import Loop
from omnicache.calibrate.gates.loss import gated_loss
from omnicache.calibrate.gates.mix import Mix
from omnicache.calibrate.gates.modules import gated_sites
from omnicache.calibrate.gates.table import LIMIT, TableGates
from omnicache.methods.harmonica import harmonica

from .tiny import Pipe, counted, dit

TOTAL, MODULES = 10, 6


def modules_of(pipe: Pipe) -> list[torch.nn.Module]:
    return [s.modules[0] for s in gated_sites("harmonica", pipe.model)]


def scheduled(logit: float, threshold: float = 0.1) -> tuple[str, ...]:
    gates = TableGates(range(1, TOTAL), MODULES)
    for row in gates.logits.values():
        row.data.fill_(logit)
    return gates.schedule(TOTAL, 0.5, threshold)


def test_all_logits_up_is_the_plain_model():
    pipe = Pipe(dit())
    plain = pipe()
    assert scheduled(LIMIT) == ("#" * TOTAL,) * MODULES
    with omnicache.cache(pipe, "harmonica", schedule=scheduled(LIMIT)):
        assert torch.equal(pipe(), plain)


def test_all_logits_down_reuses_step_nought_for_ever():
    pipe = Pipe(dit())
    rows = scheduled(-LIMIT)
    assert rows == ("#" + "." * (TOTAL - 1),) * MODULES
    with omnicache.cache(pipe, "fora", interval=1000, count="up"):
        wanted = pipe()
    with omnicache.cache(pipe, "harmonica", schedule=rows), counted(pipe.model) as calls:
        assert torch.equal(pipe(), wanted)
    assert {calls[f"transformer_blocks.{i}.{part}"] for i in range(3) for part in ("attn1", "ff")} == {1}


def test_the_gradient_is_that_of_the_published_loss():
    """``lambda dMSE/dw w (1 - w) + beta w (1 - w)``, against finite differences, in double precision."""
    pipe = Pipe(dit().double())
    weight, price, step, eps = 3.0, 0.01, 4, 1e-5
    gates = TableGates(range(1, TOTAL), MODULES)
    gates.logits = {n: torch.linspace(-1, 1, MODULES, dtype=torch.float64, requires_grad=True) for n in gates.logits}
    found = {}

    def loss_of(shift: torch.Tensor, keep: bool = False) -> float:
        said = []

        def learn(n, out, truth):
            if n == step:
                soft = gates.soft(n)
                said.append(float(gated_loss(out, truth, soft, price, weight).detach()))
                if keep:
                    loss = gated_loss(out, truth, soft, price, weight)
                    (found["all"],) = torch.autograd.grad(loss, gates.logits[n], retain_graph=True)
                    (found["mse"],) = torch.autograd.grad(gated_loss(out, truth, soft, 0.0), gates.logits[n])

        gates.logits[step].data += shift
        with Mix(pipe.model, modules_of(pipe)).attached() as mix:
            along_the_student(loop, {"dtype": torch.float64}, mix, gates, 0.1, learn)
        gates.logits[step].data -= shift
        return said[0]

    loop = Loop(pipe)
    loop.measure({"dtype": torch.float64})
    loss_of(torch.zeros(MODULES, dtype=torch.float64), keep=True)
    w = gates.soft(step).detach()
    torch.testing.assert_close(found["all"], weight * found["mse"] + price * w * (1 - w))
    for m in (0, 3, 5):
        up = torch.zeros(MODULES, dtype=torch.float64)
        up[m] = eps
        torch.testing.assert_close((loss_of(up) - loss_of(-up)) / (2 * eps), float(found["all"][m]), rtol=2e-3, atol=1e-9)


def test_lambda_is_nought_where_everything_is_computed_and_adds_up_the_path():
    pipe = Pipe(dit())
    rows = ("#.##.###.#",) * MODULES
    errors = image_errors(pipe, {}, harmonica(schedule=rows))
    assert len(errors) == TOTAL
    assert [e > 0 for e in errors] == [m == "." for m in rows[0]]
    plain = pipe()
    with omnicache.cache(pipe, "harmonica", schedule=("#." + "#" * 8,) * MODULES):
        assert errors[1] == pytest.approx(float((pipe() - plain).square().mean()), rel=1e-4)


def test_a_step_that_tells_nothing_counts_as_much_as_it_did():
    made = refreshed([1.0, 1.0, 2.0, 1.0], [0.0, 4.0, 0.0, 2.0], scaled=False)
    assert made[1:] == [4.0, 2.0 * 3.0 / (4 / 3), 2.0]
    assert refreshed([1.0, 0.5, 1.5], [0.0, 0.0, 0.0], scaled=True) == [1.0, 0.5, 1.5]
    scaled = refreshed([1.0] * 4, [0.0, 3.0, 1.0, 2.0], scaled=True)
    assert sum(scaled[1:]) / 3 == pytest.approx(1.0)


@pytest.mark.parametrize("renewing", [False, True])
def test_the_teacher_leaves_what_is_kept_alone_and_gates_above_the_limit_renew_it(renewing):
    pipe = Pipe(dit())
    loop, modules = Loop(pipe), modules_of(pipe)
    loop.measure({})
    gates = TableGates(range(1, TOTAL), MODULES)
    for row in gates.logits.values():
        row.data.fill_(0.0 if renewing else -LIMIT)
    kept = []
    with Mix(pipe.model, modules).attached() as mix:
        along_the_student(loop, {}, mix, gates, 0.1, lambda *_: kept.append([t[0].clone() for t in mix._kept.values()]))
    same = [all(torch.equal(a, b) for a, b in zip(kept[0], later, strict=True)) for later in kept[1:]]
    assert set(same) == {not renewing}
