"""Many threads over one set of weights: whether every picture is, to the bit, the one that its thread draws alone.

    python benchmarks/serving.py [--threads 64] [--runs 20] [--method taylorseer --method fora] [--out serving.json]

A tiny Stable Diffusion 3 with random weights. Each thread has a pipeline, a scheduler, a prompt and a seed of its own, and runs
torch on a fixed number of threads. Exits with 1 if a single picture differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import diffusers
import torch

import omnicache
from omnicache.measure.comparison import environment

METHODS: dict[str, dict[str, Any]] = {
    "taylorseer": {"interval": 3, "warmup": 2},
    "fora": {"interval": 3},
    "teacache": {"threshold": 1e9},
    "speca": {},
    "toca": {},
}


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def transformer(layers: int = 3) -> torch.nn.Module:
    """Weights drawn with a real spread: with untrained gates of zero a cached value would change nothing."""
    text = {"joint_attention_dim": 8, "caption_projection_dim": 16, "pooled_projection_dim": 8, "pos_embed_max_size": 8}
    size = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
    }
    model = diffusers.SD3Transformer2DModel(num_layers=layers, **size, **text)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(drawn(*p.shape, seed=i) / (p[0].numel() ** 0.5 if p.ndim > 1 else 10))
    return model.eval().requires_grad_(False)


def pipeline(model: torch.nn.Module) -> Any:
    """One thread's own, around the common denoiser."""
    torch.manual_seed(0)
    none = dict.fromkeys(f"{kind}{n}" for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, layers_per_block=1)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe = diffusers.StableDiffusion3Pipeline(**none, transformer=model, vae=vae, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, label: int, steps: int) -> torch.Tensor:
    prompt = {"prompt_embeds": drawn(1, 5, 8, seed=label), "pooled_prompt_embeds": drawn(1, 8, seed=label)}
    empty = {"negative_prompt_embeds": drawn(1, 5, 8, seed=999), "negative_pooled_prompt_embeds": drawn(1, 8, seed=999)}
    size = {"height": 8, "width": 8, "num_inference_steps": steps, "guidance_scale": 3.0, "output_type": "latent"}
    return pipe(**prompt, **empty, **size, generator=torch.Generator().manual_seed(label)).images


def serve(method: str, threads: int, runs: int, steps: int) -> dict[str, Any]:
    """Every thread's pictures against that of its single-threaded twin."""
    model = transformer()
    pipes = [pipeline(model) for _ in range(threads)]
    equal = [0] * threads
    problems: list[str] = []
    with omnicache.cache(pipes[0], method, **METHODS[method]) as run:
        twins = [draw(pipe, i, steps) for i, pipe in enumerate(pipes)]
        strip = run.computed

        def work(i: int) -> None:
            try:
                for _ in range(runs):
                    equal[i] += torch.equal(draw(pipes[i], i, steps), twins[i])
            except Exception as problem:
                problems.append(f"thread {i}: {problem!r}")

        crowd = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        began = time.perf_counter()
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        seconds = time.perf_counter() - began
        kept = run.sessions[0].bytes()
    return {
        "method": method,
        "computed": strip,
        "pictures": threads * runs,
        "equal": sum(equal),
        "seconds": round(seconds, 1),
        "bytes_left": kept,
        "problems": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--intra-op", type=int, default=1, help="threads of torch for each operation")
    parser.add_argument("--method", action="append", choices=list(METHODS), help="default: taylorseer")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.intra_op)
    results = []
    for method in args.method or ["taylorseer"]:
        found = serve(method, args.threads, args.runs, args.steps)
        results.append(found)
        told = f"{method}  {found['computed']}  {found['equal']} of {found['pictures']} pictures equal to the bit"
        told += f", {args.threads} threads x {args.runs} runs in {found['seconds']} s, {found['bytes_left']} bytes left"
        print(told, *found["problems"], sep="\n  ", flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps({"environment": environment(torch.device("cpu")), "results": results}, indent=2) + "\n")
    good = all(r["equal"] == r["pictures"] and not r["problems"] and not r["bytes_left"] for r in results)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
