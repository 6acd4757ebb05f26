"""FasterDiffusion (arXiv 2312.09608): the tests that its reference asks for, steps in batches, and noise at the sampler."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler
from tests.tiny import Always

import omnicache
from omnicache.errors import OmniCacheError
from omnicache.granularity import MLP, Deep, Encoder
from omnicache.methods.faster_diffusion import faster_diffusion
from omnicache.models import discover
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.triggers import Every, Table

from .tiny import Pipe, Truth, conditions_for, counted, ddim, dit, full_steps, strip, text_unet, unet

FIFTY = [0, 1, 2, 3, 5, 10, 15, 25, 35]
BUILD = {"unet": unet, "text": text_unet}


def keys(total, **options):
    return full_steps(strip(faster_diffusion(**options).policies[0].when, total))


def near(a, b):
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def test_the_released_lists():
    assert keys(50) == FIFTY
    assert keys(75) == [*FIFTY, 45, 55, 65]
    assert keys(100) == sorted({*range(10), *range(10, 90, 5), *range(86, 100)})


def test_other_lengths_scale_the_list_for_50():
    assert keys(25) == [0, 1, 2, 5, 7, 12, 17]
    assert keys(200) == [4 * k for k in FIFTY]
    assert keys(5) == [0, 1, 2, 3]


def test_a_list_or_an_interval_of_ones_own():
    assert keys(20, keys=(0, 3, 9)) == [0, 3, 9]
    assert keys(20, keys=(3, 9)) == [0, 3, 9]  # there is nothing to decode before
    assert keys(10, interval=4) == [0, 4, 8]
    with pytest.raises(OmniCacheError, match="not both"):
        faster_diffusion(keys=(0, 1), interval=4)


@pytest.mark.parametrize("kind", BUILD)
def test_every_step_a_key_step_without_noise_is_no_cache(kind):
    pipe = Pipe(BUILD[kind]())
    plain = pipe()
    with omnicache.cache(pipe, "faster-diffusion", interval=1, noise=0.0):
        assert torch.equal(pipe(), plain)
    with omnicache.cache(pipe, "faster-diffusion", interval=1, noise=0.0, parallel=4):
        assert torch.equal(pipe(), plain)
    with omnicache.cache(pipe, "faster-diffusion", interval=1):
        assert not torch.equal(pipe(), plain)  # a switch of its own


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize(("parallel", "decoded"), [(0, 50), (15, 15), (4, 9 + 13)])
def test_calls_of_encoder_and_decoder(kind, parallel, decoded):
    """In batches: nine key steps, and six groups between them of 1, 4, 4, 9, 9 and 14 steps, or 13 of at most four."""
    model = BUILD[kind]()
    pipe = Pipe(model)
    with omnicache.cache(pipe, "faster-diffusion", parallel=parallel) as run, counted(model) as calls:
        pipe(num_inference_steps=50)
    assert full_steps(run.computed) == FIFTY
    assert set(run.computed) == {"#", "."}
    assert {calls[n] for n in ("conv_in", "down_blocks.0", "down_blocks.1.resnets.0.conv1", "mid_block.resnets.1")} == {9}
    assert {calls[n] for n in ("up_blocks.0", "up_blocks.1", "conv_out")} == {decoded}


@pytest.mark.parametrize(("kind", "guidance", "noise"), [("unet", "none", 0.0), ("text", "batched", 0.0), ("text", "calls", 0.1)])
def test_one_by_one_and_in_batches_are_the_same(kind, guidance, noise):
    pipe = Pipe(BUILD[kind]())
    call = {"label": [1, 2], "num_inference_steps": 15, "guidance": guidance}
    with omnicache.cache(pipe, "faster-diffusion", noise=noise):
        single = pipe(**call)
    with omnicache.cache(pipe, "faster-diffusion", noise=noise, parallel=15) as run:
        assert near(pipe(**call), single)
        again = pipe(**call)
        assert near(again, single)
        assert run.sessions[0].bytes() == 0
    assert not run.trace.notes


@pytest.mark.parametrize("kind", BUILD)
def test_a_step_between_key_steps_does_not_read_the_latents(kind):
    model = BUILD[kind]()
    plan = Plan("keys", (Policy(Table("##.#"), Encoder()),), min_steps=0)
    x, more = torch.randn(3, 1, 4, 8, 8), conditions_for(model, torch.tensor([1]))
    times, out = (900, 700, 500), []
    for last in (x[2], torch.randn(1, 4, 8, 8)):
        with omnicache.cache(model, plan) as run:
            for t, latents in zip(times, (x[0], x[1], last), strict=True):
                found = model(latents, torch.tensor(t), **more).sample
        assert run.computed == "##."
        out.append(found)
    assert torch.equal(*out)
    assert not torch.equal(out[0], model(x[2], torch.tensor(500), **more).sample)


@pytest.mark.parametrize("kind", BUILD)
def test_true_features_in_place_of_kept_ones_give_the_true_output(kind):
    pipe, truth, steps = Pipe(BUILD[kind]()), Truth(), {"num_inference_steps": 5, "stop": 3}
    uncached = pipe(**steps)
    with omnicache.cache(pipe, Policy(Always(), Encoder(), truth)):
        assert torch.equal(pipe(**steps), uncached)
    with omnicache.cache(pipe, Policy(Table("#...."), Encoder(), truth.played())) as run:
        assert torch.equal(pipe(**steps), uncached)
    assert run.computed == "#.."
    with omnicache.cache(pipe, Policy(Table("#...."), Encoder(), truth.played(change=0.1))):
        assert not torch.equal(pipe(**steps), uncached)


def test_what_is_no_unet_is_refused():
    with pytest.raises(OmniCacheError, match="faster-diffusion needs a U-Net: DiTTransformer2DModel"):
        omnicache.enable(Pipe(dit()), "faster-diffusion")


def test_the_encoder_is_what_makes_skip_tensors_and_the_middle():
    sites = Encoder().select(discover(text_unet()))
    assert [s.name for s in sites] == ["conv_in", *(f"down_blocks.{i}" for i in range(3)), "mid_block"]


# --- in batches ------------------------------------------------------------------------------------------------------------


def noted(pipe, **call):
    """Latents in batches, the same one by one, and what was said."""
    with omnicache.cache(pipe, "faster-diffusion", noise=0.0):
        single = pipe(**call)
    with omnicache.cache(pipe, "faster-diffusion", noise=0.0, parallel=8) as run:
        out = pipe(**call)
    assert near(out, single)
    return " ".join(run.trace.notes)


def test_latents_that_are_read_elsewhere_are_found_out():
    class Peeking(type(unet())):
        def forward(self, sample, timestep, **more):
            return (super().forward(sample, timestep, **more).sample + 0.1 * sample,)

    model = unet()
    model.__class__ = Peeking
    assert "reads its latents" in noted(Pipe(model), num_inference_steps=12)


def test_arguments_that_change_are_found_out():
    model = text_unet()

    class Turning(Pipe):
        def evaluate(self, x, t, conditions):
            text = conditions["encoder_hidden_states"]
            return super().evaluate(x, t, {"encoder_hidden_states": text * (1 + float(t) / 1000)})

    assert "changes from step to step" in noted(Turning(model), num_inference_steps=12)


def test_the_same_arguments_in_new_tensors_are_the_same():
    class Fresh(Pipe):
        def evaluate(self, x, t, conditions):
            return super().evaluate(x, t, {k: v.clone() for k, v in conditions.items()})

    assert noted(Fresh(text_unet()), num_inference_steps=12) == ""


def test_times_that_the_scheduler_does_not_list_are_not_guessed():
    class Other(Pipe):
        def evaluate(self, x, t, conditions):
            return super().evaluate(x, 500 + t / 3, conditions)

    assert "times of those to come are not known" in noted(Other(unet()), num_inference_steps=12)


def test_a_tenth_of_a_percent_of_the_time_is_recognised():
    class Thousandth(Pipe):
        def evaluate(self, x, t, conditions):
            return super().evaluate(x, t / 1000, conditions)

    assert noted(Thousandth(unet()), num_inference_steps=12) == ""


def test_a_time_that_is_listed_twice():
    pipe = Pipe(unet(), PNDMScheduler(skip_prk_steps=True))
    assert noted(pipe, num_inference_steps=12) == ""


def test_a_plan_with_steps_ahead_has_one_policy():
    both = (Policy(Every(2), Encoder(), ahead=4), Policy(Every(2), MLP()))
    with pytest.raises(OmniCacheError, match="plans of one policy"):
        Plan("both", both)
    assert Plan.from_json(faster_diffusion(parallel=3).to_json()) == faster_diffusion(parallel=3)


def test_where_nothing_is_freed_of_its_latents_steps_are_evaluated_one_by_one():
    pipe = Pipe(unet())
    with omnicache.cache(pipe, Policy(Every(3), Deep(0))):
        single = pipe()
    with omnicache.cache(pipe, Policy(Every(3), Deep(0), ahead=3)) as run:
        assert torch.equal(pipe(), single)
    assert "reads its latents" in " ".join(run.trace.notes)


# --- prior noise at the sampler --------------------------------------------------------------------------------------------


def stepped(pipe, **options):
    """Of every step of a cached run: the time, the noise level, the latents before it, those that the scheduler itself was given,
    and the result."""
    kind, seen = type(pipe.scheduler), []

    class Watched(kind):
        def step(self, model_output, timestep, sample, **more):
            found = super().step(model_output, timestep, sample, **more)
            sigma = float(self.sigmas[len(seen)]) if hasattr(self, "sigmas") else 0.0
            seen.append((float(timestep), sigma, seen[-1][-1] if seen else sample, sample, found.prev_sample))
            return found

    pipe.scheduler.__class__ = Watched
    with omnicache.cache(pipe, "faster-diffusion", **options):
        pipe(num_inference_steps=8)
    return seen


@pytest.mark.parametrize("scheduler", [ddim(), EulerDiscreteScheduler()], ids=["latents of unit variance", "large latents"])
def test_the_first_noise_is_added_in_the_late_half_before_each_step(scheduler):
    """Also where every step is computed. Brought to unit variance, samplers share their latents, and the same is added."""
    pipe = Pipe(unet(), scheduler)
    seen = stepped(pipe, interval=1, noise=0.25)
    assert 3 <= sum(t < 500 for t, *_ in seen) <= 5
    first, top = seen[0][2], seen[0][1]
    for t, sigma, before, given, _ in seen:
        size, size_then = (1 + sigma**2) ** 0.5, (1 + top**2) ** 0.5
        torch.testing.assert_close(given / size, before / size + (0.25 * first / size_then if t < 500 else 0))


def test_two_pipelines_around_one_model_add_their_own_noise():
    a = Pipe(unet())
    b = Pipe(a.model)
    alone = []
    for pipe, label in ((a, 1), (b, 2)):
        with omnicache.cache(pipe, "faster-diffusion", noise=0.1):
            alone.append(pipe(label))
    run = omnicache.enable(a, "faster-diffusion", noise=0.1)
    steps = []

    class Nesting(Pipe):
        """Runs the other pipeline in the middle of its own run."""

        def evaluate(self, x, t, conditions):
            steps.append(t)
            if len(steps) == 6:
                assert torch.equal(b(2), alone[1])
            return super().evaluate(x, t, conditions)

    a.__class__ = Nesting
    assert torch.equal(a(1), alone[0])
    assert run.sessions[0].bytes() == 0
    omnicache.disable(a)
    a.__class__ = Pipe
    assert not torch.equal(a(1), alone[0])


def test_the_first_latents_are_counted_and_freed():
    pipe = Pipe(unet())
    sizes = []
    with omnicache.cache(pipe, "faster-diffusion", interval=1, noise=0.1) as run:
        session = run.sessions[0]

        class Counting(Pipe):
            def evaluate(self, x, t, conditions):
                sizes.append(session.bytes())
                return super().evaluate(x, t, conditions)

        pipe.__class__ = Counting
        pipe()
        assert session.bytes() == 0
    assert sizes[-1] == 4 * 8 * 8 * 4


def test_without_a_scheduler_noise_is_left_out_and_the_trace_says_so():
    model = unet()
    with omnicache.cache(model, "faster-diffusion", interval=2) as run:
        for t in (900.0, 700.0, 500.0, 300.0, 100.0):
            model(torch.randn(1, 4, 8, 8), torch.tensor(t))
    assert run.computed == "#.#.#"
    assert "PriorNoise did nothing at the sampler" in " ".join(run.trace.notes)
