"""What OmniCache itself costs, where there is next to nothing to compute.

    python benchmarks/overhead.py [--repeats 40] [--out benchmarks/results/overhead.json]

A Flux-shaped model of 19 + 38 tiny blocks: a step that is wholly reused is timed against the model's own floor outside its blocks,
which is what the same model takes with blocks that hand their input on, less what those blocks take when they are called by
themselves. A hooked call is timed by itself. Rounds of five steps are interleaved; medians and the least are printed with the load
average.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

import omnicache
from omnicache.granularity import Stack
from omnicache.measure.comparison import environment, rounded
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.runtime.hook import Hook
from omnicache.triggers import Every, First

DOUBLE, SINGLE = 19, 38
IN_A_ROW = 5
"""Steps of one kind between two readings of the clock."""


def flux() -> nn.Module:
    torch.manual_seed(0)
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=DOUBLE,
        num_single_layers=SINGLE,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=12,
        axes_dims_rope=(2, 2, 4),
    ).eval()


class Passes(nn.Module):
    """A block that hands both of its streams on."""

    def forward(self, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
        return encoder_hidden_states, hidden_states


def arguments() -> dict[str, torch.Tensor]:
    return {
        "hidden_states": torch.randn(1, 16, 4),
        "encoder_hidden_states": torch.randn(1, 6, 12),
        "pooled_projections": torch.randn(1, 12),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(6, 3),
    }


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def summary(times: list[float]) -> dict[str, float]:
    return {"median_us": 1e6 * statistics.median(times), "least_us": 1e6 * min(times)}


def reused_step(repeats: int) -> dict[str, Any]:
    model, given = flux(), arguments()
    floor = copy.deepcopy(model)
    floor.transformer_blocks = nn.ModuleList(Passes() for _ in range(DOUBLE))
    floor.single_transformer_blocks = nn.ModuleList(Passes() for _ in range(SINGLE))
    times: dict[str, list[float]] = {"floor": [], "reused": [], "full": []}
    x, context = torch.randn(1, 16, 16), torch.randn(1, 6, 16)
    idle = [*floor.transformer_blocks, *floor.single_transformer_blocks]

    def blocks_alone() -> None:  # called as the model calls them
        for block in idle:
            block(hidden_states=x, encoder_hidden_states=context, temb=x, image_rotary_emb=x, joint_attention_kwargs=None)

    plan = Plan("overhead", (Policy(First(2) | Every(10_000), Stack(), Residual(Hold())),), min_steps=0)
    steps = iter(range(10**6))

    def at(t: int) -> dict[str, torch.Tensor]:
        return {**given, "timestep": torch.tensor([1.0 - 1e-5 * t])}

    with torch.no_grad():
        for _ in range(5):
            times["full"].append(seconds(lambda: model(**at(0))))
        with omnicache.cache(model, plan) as run:
            for _ in range(4):  # two computed steps, the proof, and a first reuse
                model(**at(next(steps)))
            for _ in range(repeats):
                given_now = [at(next(steps)) for _ in range(IN_A_ROW)]
                times["reused"].append(seconds(lambda g=given_now: [model(**now) for now in g]) / IN_A_ROW)
                whole = seconds(lambda g=given_now: [floor(**now) for now in g])
                times["floor"].append((whole - seconds(lambda: [blocks_alone() for _ in range(IN_A_ROW)])) / IN_A_ROW)
            if set(run.computed[2:]) != {"."}:
                raise SystemExit(f"the steps were not reused: {run.computed}")
    above = [a - b for a, b in zip(times["reused"], times["floor"], strict=True)]
    found = {name: summary(t) for name, t in times.items()}
    return {**found, "above_the_floor": summary(above), "each_passed_block_us": summary(above)["median_us"] / (DOUBLE + SINGLE)}


def hooked_call(repeats: int) -> dict[str, float]:
    module, x, rounds = nn.Identity(), torch.zeros(1), 2000
    times = []
    for _ in range(repeats):
        plain = seconds(lambda: [module(x) for _ in range(rounds)])
        hook = Hook(module, lambda call, args, kwargs: call(*args, **kwargs))
        times.append((seconds(lambda: [module(x) for _ in range(rounds)]) - plain) / rounds)
        hook.remove()
    return summary(times)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--repeats", type=int, default=40)
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.json"))
    a = ask.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {**environment(torch.device("cpu")), "when": time.strftime("%Y-%m-%d")}
    result["hooked_call"] = hooked_call(a.repeats)
    result["reused_step"] = reused_step(a.repeats)
    result["load_average_after"] = list(os.getloadavg())
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    print(f"a hooked call: {result['hooked_call']['median_us']:.2f} us above a plain one")
    step = result["reused_step"]
    print(
        f"a reused step of {DOUBLE + SINGLE} blocks: {step['reused']['median_us'] / 1e3:.3f} ms, the model's own floor "
        f"{step['floor']['median_us'] / 1e3:.3f} ms, between them {step['above_the_floor']['median_us'] / 1e3:.3f} ms (least "
        f"{step['above_the_floor']['least_us'] / 1e3:.3f}), {step['each_passed_block_us']:.2f} us a block; "
        f"a full step {step['full']['median_us'] / 1e3:.1f} ms"
    )
    print(f"load average {result['load_average']} before, {[round(v, 2) for v in result['load_average_after']]} after")


if __name__ == "__main__":
    main()
