"""Every Triton kernel compiled for two generations of GPUs, which needs none: Triton brings its own assembler.

``test_twins.py`` runs this file by itself. What is compiled is what half-precision features of SD3-medium's width would meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from omnicache.kernels import triton_match, triton_rows, triton_sums

WIDTH = 1536
STRIDES = ("src_group", "src_row", "dst_group", "dst_row")
ROWS = {"out": "*bf16", "index": "*i64", "inverse": "*i64", "x": "*bf16", "kept": "*bf16", "fresh": "*bf16"}
SUMS = {f"x{i}": "*bf16" for i in range(8)} | {f"w{i}": "fp32" for i in range(8)} | {"out": "*bf16"}
CHANGE = {"parts": "*fp32", "now": "*bf16", "before": "*bf16"}
MATCH = {"score": "*fp32", "match": "*i64", "over_src": "*fp32", "over_dst": "*fp32", "parts": "*fp32"}


def built(kernel: Any, kinds: dict[str, str], constants: dict[str, Any], warps: int, target: int, odd: Sequence[str] = ()) -> Any:
    """Compiled as the launcher would: all pointers and numbers multiples of 16, but those in ``odd``."""
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in kernel.arg_names}
    whole = [i for i, n in enumerate(kernel.arg_names) if signature[n][0] in "*i" and n not in odd]
    attributes = {(i,): [["tt.divisibility", 16]] for i in whole}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": warps})


def moves_sixteen_bytes(made: Any) -> None:
    ptx = made.asm["ptx"]
    assert ".v4" in "".join(line for line in ptx.splitlines() if "ld.global" in line)
    assert ".local" not in ptx


@pytest.mark.parametrize("target", [80, 90])
def test_rows(target: int) -> None:
    tile = triton_rows.shape_of(WIDTH)
    for kernel in (triton_rows._take, triton_rows._fill):
        moves_sixteen_bytes(built(kernel, ROWS, tile, triton_rows.WARPS, target))
    built(triton_rows._fill, ROWS, triton_rows.shape_of(7), triton_rows.WARPS, target, odd=("width", "stride"))


@pytest.mark.parametrize("target", [80, 90])
def test_sums(target: int) -> None:
    for count in (1, 3, 8):
        constants = {"COUNT": count, "BLOCK": triton_sums.BLOCK}
        moves_sixteen_bytes(built(triton_sums._weighted_sum, SUMS, constants, triton_sums.WARPS, target))
    constants = {"SQUARES": False, "BLOCK": triton_sums.BLOCK}
    moves_sixteen_bytes(built(triton_sums._change, CHANGE, constants, triton_sums.WARPS, target, odd=("chunks",)))


@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(("dtype", "kind"), [(torch.bfloat16, "*bf16"), (torch.float16, "*fp16"), (torch.float32, "*fp32")])
def test_match(dtype: torch.dtype, kind: str, target: int) -> None:
    for kernel, sizes in ((triton_match._match, (3072, 1024, WIDTH)), (triton_match._part, (12, 13, 9216 * 320))):
        made = built(kernel, MATCH | {"src": kind, "dst": kind}, triton_match.tile_of(*sizes, dtype), 4, target, odd=("groups",))
        assert "mma" in made.asm["ptx"]  # the tensor cores
        assert ".local" not in made.asm["ptx"]
        assert made.metadata.shared <= 99 * 1024  # what the smaller chips of the generation have


ALL = [
    (triton_rows._take, ROWS, triton_rows.shape_of(72)),
    (triton_rows._fill, ROWS, triton_rows.shape_of(72)),
    (triton_rows._fill, ROWS, triton_rows.shape_of(1)),
    (triton_sums._weighted_sum, SUMS, {"COUNT": 8, "BLOCK": triton_sums.BLOCK}),
    (triton_sums._change, CHANGE, {"SQUARES": True, "BLOCK": triton_sums.BLOCK}),
    (triton_match._match, MATCH | {"src": "*fp16", "dst": "*fp16"}, triton_match.tile_of(1, 1, 72, torch.float16)),
    (triton_match._part, MATCH | {"src": "*fp16", "dst": "*fp16"}, triton_match.tile_of(1, 1, 72, torch.float16)),
]


@pytest.mark.parametrize(("kernel", "kinds", "constants"), ALL)
def test_sizes_of_one(kernel: Any, kinds: dict[str, str], constants: dict[str, Any]) -> None:
    """A number that is 1 is compiled in, as a launch with it would do: each by itself, and all at once."""
    numbers = [n for n in kernel.arg_names if n not in kinds and n not in constants]
    assert numbers
    for ones in [*([n] for n in numbers), numbers]:
        built(kernel, kinds, constants | dict.fromkeys(ones, 1), 4, 90, odd=numbers)
