"""TeaCache's curve, fitted to uncached runs."""

from types import SimpleNamespace

import pytest
import torch

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.signals import ModulatedInputChange

from ..methods.tiny import Doubling, Pipe, dit

RATES = [0.02, 0.3, 0.1, 0.05, 0.25, 0.15, 0.2, 0.08, 0.12, 0.27]


class Squares(Doubling):
    """A hidden state that grows by ``x`` makes an output that grows by ``2 x + x^2``."""

    def forward(self, hidden_states, timestep):
        return super().forward(hidden_states, timestep).square()


class Growing:
    """A scheduler that makes the latent grow by a known rate at each step, whatever the model says."""

    init_noise_sigma = 1.0

    def set_timesteps(self, num_inference_steps):
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.arange(num_inference_steps - 1, -1, -1)

    def step(self, model_output, timestep, sample):
        return SimpleNamespace(prev_sample=sample * (1 + RATES[self.num_inference_steps - 1 - int(timestep)]))


def value(coefficients, x: float) -> float:
    out = 0.0
    for c in coefficients:
        out = out * x + c
    return out


@pytest.mark.parametrize("guidance", ["none", "calls"])
def test_the_polynomial_is_recovered(guidance):
    pipe = Pipe(Squares(), Growing())
    plan = omnicache.calibrate(pipe, [1, 2], "teacache", progress=False, degree=2, guidance=guidance, threshold=0.4)
    assert plan.options["coefficients"] == pytest.approx((1.0, 2.0, 0.0), abs=2e-3)
    assert plan.options["threshold"] == 0.4
    assert plan.policies[0].when.b.coefficients == plan.options["coefficients"]
    passes = 2 if guidance == "calls" else 1
    assert plan.measured["pairs"] == 2 * 9 * passes  # the first step has nothing before it
    assert plan.measured["change_range"] == pytest.approx((0.02, 0.3), rel=1e-3)
    assert plan.measured["fit_error"] < 1e-5


def test_the_papers_degree_fits_as_well():
    plan = omnicache.calibrate(Pipe(Squares(), Growing()), [1, 2], "teacache", progress=False, degree=4)
    assert len(plan.options["coefficients"]) == 5
    for x in (0.03, 0.1, 0.2, 0.3):
        assert value(plan.options["coefficients"], x) == pytest.approx(2 * x + x * x, abs=1e-4)


def test_the_degree_is_chosen_by_how_well_it_predicts_a_run_left_out():
    plan = omnicache.calibrate(Pipe(Squares(), Growing()), [1, 2, 3], "teacache", progress=False)
    assert 2 <= plan.measured["degree"] <= 4
    for x in (0.03, 0.1, 0.2, 0.3):
        assert value(plan.options["coefficients"], x) == pytest.approx(2 * x + x * x, abs=1e-4)
    alone = omnicache.calibrate(Pipe(Squares(), Growing()), [1], "teacache", progress=False)
    assert alone.measured["degree"] == 1  # nothing to leave out


@pytest.mark.parametrize("reuse", [0.0, 0.2, 0.5, 0.8])
def test_the_threshold_is_the_one_that_reuses_as_many_steps_as_asked(reuse):
    pipe = Pipe(Squares(), Growing())
    plan = omnicache.calibrate(pipe, [1, 2], "teacache", progress=False, degree=2, reuse=reuse)
    with omnicache.cache(pipe, plan) as run:
        pipe()
    share = run.computed.count(".") / 10
    assert share == plan.measured["reuse"] >= reuse
    lower = omnicache.Plan.from_json(plan.to_json())
    with omnicache.cache(
        pipe, "teacache", threshold=0.98 * plan.options["threshold"], coefficients=lower.options["coefficients"]
    ) as run:
        pipe()
    assert run.computed.count(".") / 10 < reuse or reuse == 0.0  # a smaller one would not do


def test_the_fitted_plan_gathers_the_change_of_the_output():
    pipe = Pipe(Squares(), Growing())
    plan = omnicache.calibrate(pipe, [1], "teacache", progress=False, degree=2, threshold=0.45)
    with omnicache.cache(pipe, plan) as run:
        pipe()
    expected, gathered = "#", 0.0
    for x in RATES[:8]:
        gathered += 2 * x + x * x
        expected += "#" if gathered >= 0.45 else "."
        gathered = 0.0 if gathered >= 0.45 else gathered
    assert run.computed == expected + "#"
    assert "." in expected


def test_on_a_transformer_the_plan_is_bound_to_it_and_nothing_stays_behind():
    pipe = Pipe(dit())
    plain = pipe()
    plan = omnicache.calibrate(pipe, [1, 2, 3], "teacache", progress=False, num_inference_steps=10, guidance="batched")
    assert plan.made_for["model"] == "DiTTransformer2DModel"
    assert plan.measured["pairs"] == 27
    assert torch.equal(pipe(), plain)
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))
    with omnicache.cache(pipe, plan) as run:
        pipe(guidance="batched")
    assert any(r.signals.get(ModulatedInputChange()) is not None for r in run.trace.records)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"degree": 0}, r"degree: 0 is outside \[1, 8\]"),
        ({"degre": 4}, "'degre' is neither an option of this calibration nor an argument of Pipe. Did you mean 'degree'"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options, said):
    pipe = Pipe(Squares(), Growing())
    with pytest.raises(OmniCacheError, match=said):
        omnicache.calibrate(pipe, [1], "teacache", progress=False, **options)
    assert not hasattr(pipe.scheduler, "timesteps")


@pytest.mark.parametrize("steps", [1, 2])
def test_too_few_steps_are_refused(steps):
    with pytest.raises(OmniCacheError, match=rf"{steps} step\(s\) are too few: the first and the last are computed anyway"):
        omnicache.calibrate(Pipe(dit()), [1], "teacache", progress=False, num_inference_steps=steps)
