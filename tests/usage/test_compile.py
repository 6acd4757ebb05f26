"""torch.compile: blocks keep their graphs, one for each kind, with every method that reuses whole blocks; whole models are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from tests.compat.denoisers.flux import DENOISERS
from tests.tiny import built
from torch import Tensor

import omnicache
from omnicache.granularity import MLP, Attention
from omnicache.models import discover
from omnicache.weights import Weights

from .parts import STEPS, autoencoder, denoiser, draw, drawn, pipeline


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """A backend that runs graphs as they are, and counts them and their calls."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.calls += 1
            return graph(*args)

        return run


def flux() -> Any:
    """Flux without text encoders: two blocks of two streams, then one of one."""
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    config = {**DENOISERS["FluxTransformer2DModel"].config, "num_single_layers": 1}
    parts = {"transformer": built(lambda: diffusers.FluxTransformer2DModel(**config)), "vae": autoencoder(1)}
    made = diffusers.FluxPipeline(**none, **parts, scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    made.set_progress_bar_config(disable=True)
    return made


def paint(pipe: Any, label: int = 1) -> Tensor:
    prompt = {"prompt_embeds": drawn(1, 6, 12, seed=label), "pooled_prompt_embeds": drawn(1, 12, seed=label)}
    size = {"height": 8, "width": 8, "num_inference_steps": STEPS, "output_type": "pt"}
    return pipe(**prompt, **size, generator=torch.Generator().manual_seed(0)).images


BLOCKS, KINDS = 3, 2
WHOLE_BLOCKS = [
    ("before", "fora", {"interval": 3, "granularity": "stack"}),
    ("after", "taylorseer", {"interval": 3, "warmup": 2}),
    ("before", "teacache", {"threshold": 1e9}),
    ("after", "omnicache-trajectory", {"schedule": "#.#..#", "gamma": (None, 0.5, None, 0.5, 0.5, None)}),
    (
        "after",
        "omnicache-optimal",
        {"schedule": "#.#..#", "weights": (None, (0.0, 1.0, 0.0), None, *((0.0, 1.5, 0.0, -0.5, 0.0),) * 2, None)},
    ),
    ("before", "omnicache-layered", {"schedule": "#.#..#"}),
    ("after", "block-caching", {"schedule": "#.#..#"}),
    ("before", "fastcache", {"maps": ((),) * 3, "threshold": 9.0, "motion": None}),
    ("after", "hicache", {"interval": 3, "warmup": 2}),
    ("before", "foca", {"interval": 3, "warmup": 2}),
    ("after", "first-block-cache", {"threshold": 9.0, "longest": 2}),
    ("after", "delta-dit", {"interval": 3, "span": 1.0}),
    ("before", "dbcache", {"front": 1, "warmup": 2, "threshold": 9.0, "longest": 2}),
    ("after", "easycache", {"threshold": 9.0, "warmup": 2}),
    ("before", "magcache", {"ratios": (1.0,), "longest": 2}),
    ("after", "seacache", {"threshold": 1e9}),
    ("before", "foresight", {"scale": 1e9, "warmup": 2, "interval": 4}),
    ("after", "ab-cache", {"interval": 3, "warmup": 2}),
    ("before", "freqca", {"interval": 3, "warmup": 2}),
    ("after", "dicache", {"threshold": 1e9}),
    ("before", "ertacache", {"schedule": "#.#..#"}),
]
"""When blocks are compiled, and what they are cached by."""


def test_every_method_that_reuses_whole_blocks_is_tried_here():
    """Or it looks inside blocks, and refuses compiled ones."""
    gated = (Attention() | MLP()).select(discover(flux().transformer))
    table, gates = {"schedule": "#.#..#"}, tuple(Weights(torch.zeros(6, 8)) for _ in gated)
    inside = {
        "toca": {},
        "speca": {},
        "omnicache-md": {},
        "tomesd": {},
        "learning-to-cache": table,
        "harmonica": table,
        "adacache": {},
        "pab": {},
        "chipmunk": {},
        "feb-cache": {},
        "fastercache": {},
    }
    inside["lazydit"] = {"schedule": "#.#.#.", "gates": gates}
    none = {"none", "fewer-steps", "cfg-cache"}  # this model is called once a step
    elsewhere = {"deepcache", "faster-diffusion", "t-gate", "vcut"}  # which need a U-Net, or attention to text alone
    assert set(omnicache.methods()) - set(inside) - none == {name for _, name, _ in WHOLE_BLOCKS} | elsewhere
    for method, options in inside.items():
        pipe = flux()
        pipe.transformer.compile_repeated_blocks(backend="eager")
        with pytest.raises(omnicache.OmniCacheError, match="which is compiled"):
            omnicache.enable(pipe, method, **options)


@pytest.mark.parametrize(("when", "method", "options"), WHOLE_BLOCKS)
def test_repeated_blocks_keep_their_graphs(when, method, options):
    pipe, graphs = flux(), Counting()
    with omnicache.cache(pipe, method, **options):
        wanted = paint(pipe)

    def compile_blocks() -> None:
        pipe.transformer.compile_repeated_blocks(backend=graphs, fullgraph=True)

    if when == "before":
        compile_blocks()
    with omnicache.cache(pipe, method, **options) as run:
        if when == "after":
            compile_blocks()
        for label in (1, 2, 1):
            last = paint(pipe, label)
        assert graphs.graphs == KINDS, "none anew in later steps and runs"
        looked_at = int(method in ("first-block-cache", "dbcache", "dicache"))  # blocks that run at every step
        steps = (run.computed.count("#"), run.computed.count("."))
        assert graphs.calls == 3 * (BLOCKS * steps[0] + looked_at * steps[1]), "all blocks at computed steps, and no others"
        assert "." in run.computed
    torch.testing.assert_close(last, wanted)
    graphs.calls = 0
    plain = paint(pipe)
    assert (graphs.graphs, graphs.calls) == (KINDS, BLOCKS * STEPS), "as many as without a cache"
    assert not torch.equal(plain, last)
    off = omnicache.methods()[method].off
    with omnicache.cache(pipe, method, **{k: v for k, v in options.items() if k in ("granularity", "front")}, **off):
        assert torch.equal(paint(pipe), plain)
    assert graphs.graphs == KINDS


def test_a_unet_keeps_its_graphs():
    """Those inside what DeepCache passes over and those outside of it, compiled as diffusers names them."""
    pipe, graphs = pipeline("unet"), Counting()
    pipe.unet.compile_repeated_blocks(backend=graphs, fullgraph=True)
    draw(pipe)
    found, whole = graphs.graphs, graphs.calls
    assert found > 0
    with omnicache.cache(pipe, "deepcache", interval=3) as run:
        draw(pipe)
        pipe.unet.compile_repeated_blocks(backend=graphs, fullgraph=True)  # anew: that is another compilation
        draw(pipe)
        draw(pipe)
        assert run.computed == "#..#.."
    assert graphs.graphs == found
    assert whole < graphs.calls - whole < 3 * whole


def test_deep_parts_of_a_unet_that_are_compiled_themselves():
    pipe, graphs = pipeline("unet"), Counting()
    with omnicache.cache(pipe, "deepcache", interval=3):
        wanted = draw(pipe)
    pipe.unet.mid_block.compile(backend=graphs, fullgraph=True)
    with omnicache.cache(pipe, "deepcache", interval=3) as run:
        for _ in range(2):
            torch.testing.assert_close(draw(pipe), wanted)
        assert (graphs.graphs, graphs.calls) == (1, 2 * run.computed.count("#"))


# --- whole models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["unet", "transformer"])
def test_a_whole_model_that_is_compiled_already_is_refused(family):
    pipe = pipeline(family)
    setattr(pipe, family, torch.compile(denoiser(pipe), backend="eager"))
    with pytest.raises(omnicache.OmniCacheError, match="compiled as a whole"):
        omnicache.enable(pipe, "deepcache" if family == "unet" else "taylorseer")


def test_a_compiler_around_an_enabled_model_is_kept_out_and_this_is_said():
    """``pipe.transformer = torch.compile(pipe.transformer)`` after ``enable`` once ended in an error inside the compiler."""
    pipe, graphs = pipeline("transformer"), Counting()
    model = pipe.transformer
    run = omnicache.enable(pipe, "fora", interval=3)
    cached = draw(pipe)
    pipe.transformer = torch.compile(model, backend=graphs)
    with pytest.warns(UserWarning, match=r"compiled by torch\.compile\(\.\.\.\) after it was enabled, and runs uncompiled"):
        assert torch.equal(draw(pipe), cached)
    assert "runs uncompiled" in str(run)
    assert graphs.graphs == 0


def test_a_full_graph_around_an_enabled_model_is_refused_in_words():
    pipe = pipeline("transformer")
    given = drawn(1, 16, 8, 8), drawn(1, 5, 8), drawn(1, 8), torch.tensor([500.0])
    with omnicache.cache(pipe, "taylorseer"):
        around = torch.compile(pipe.transformer, backend="eager", fullgraph=True)
        with pytest.raises(Exception, match="OmniCache was enabled on this module"):
            around(*given)
        pipe.transformer.transformer_blocks[1] = torch.compile(
            pipe.transformer.transformer_blocks[1], backend="eager", fullgraph=True
        )
        with pytest.raises(Exception, match="OmniCache was enabled on this module"):
            draw(pipe)


def test_the_trace_is_not_that_of_the_run_before_a_model_was_compiled():
    pipe = pipeline("transformer")
    with omnicache.cache(pipe, "taylorseer", interval=3, warmup=2) as run:
        draw(pipe)
        assert "." in run.computed
        pipe.transformer.compile(backend="eager")
        with pytest.warns(UserWarning, match="compiled as a whole after"), torch.compiler.set_stance("force_eager"):
            draw(pipe)
        assert run.computed == ""
        assert "compiled as a whole after it was enabled" in str(run)
