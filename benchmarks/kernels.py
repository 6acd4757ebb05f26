"""How near the kernels come to what the memory can do, and how much faster than plain torch they are.

    python benchmarks/kernels.py [--sweep] [--out benchmarks/results/kernels.json]
    python benchmarks/kernels.py --device cpu                   # tiny sizes: does the script work?

First the ceiling: a copy of 1 GB from device memory to device memory, and copies as large as the features below. Then every
kernel at the sizes of SD3-medium, SVD-XT and Latte-1. Bytes are the fewest that must move: everything is counted once that is read,
and once that is written. Each call finds its tensors outside the caches, because so many sets of them take turns that they do not
fit, and calls are replayed from a CUDA graph, so that what is timed is the device's work; ``eager_us`` is a call as a program makes
it, with what Python takes.

Taking rows out and putting them back (merge and unmerge) is also timed in two other ways of plain torch: as ToMeSD writes it, with
gather and scatter over an expanded index, and in as few passes as torch can do it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnicache import kernels
from omnicache.kernels import dispatch, inverse_of, reference
from omnicache.measure.comparison import environment, rounded

REPLAYS = 21


@dataclass(frozen=True)
class Size:
    """Features of one kind of layer: ``(batch, tokens, width)``, and the shares of tokens that are left out there."""

    name: str
    batch: int
    tokens: int
    width: int
    ratios: tuple[float, ...]


SIZES = (
    Size("SD3-medium", 2, 4096, 1536, (0.4, 0.5, 0.6)),
    Size("SVD-XT, outer level", 50, 9216, 320, (0.5,)),
    Size("SVD-XT, second level", 50, 2304, 640, (0.5,)),
    Size("Latte-1", 32, 1024, 1152, (0.2, 0.5)),
)
TINY = (Size("tiny", 2, 64, 32, (0.5,)),)


class Bench:
    """Times calls on one device."""

    def __init__(self, device: torch.device):
        self.device, self.cuda = device, device.type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda or not dispatch.FORCED else torch.float32
        cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) if self.cuda else 0
        self.ungraphed: str | None = None
        """Why the last call that could not be captured in a graph could not."""
        self.outside = 4 * (cache or 50_000_000) if self.cuda else 0

    def drawn(self, *shape: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=self.device, dtype=torch.float32).to(self.dtype)

    def sets(self, bytes_each: int) -> int:
        return max(2, min(32, -(-self.outside // max(bytes_each, 1)))) if self.cuda else 2

    def seconds(self, calls: Sequence[Callable[[], Any]]) -> dict[str, float]:
        """Median seconds of one of ``calls``, which do the same on different tensors: on the device, and as a program calls."""
        for call in calls:
            call()
        if not self.cuda:
            took = []
            for call in calls * 3:
                began = time.perf_counter()
                call()
                took.append(time.perf_counter() - began)
            return {"seconds": statistics.median(took), "eager_us": 1e6 * statistics.median(took)}
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(3):
            for call in calls:
                call()
        torch.cuda.synchronize()
        eager = (time.perf_counter() - began) / (3 * len(calls))
        graph, kept = torch.cuda.CUDAGraph(), []
        try:
            with torch.cuda.graph(graph):
                kept += [call() for call in calls]  # what is made is held, or one call would write where another has
            again = graph.replay
        except Exception as bad:  # then with what Python takes between the calls, which for short ones is most of it
            self.ungraphed = f"{type(bad).__name__}: {bad}"[:200]
            torch.cuda.synchronize()

            def again() -> None:
                for call in calls:
                    call()

        for _ in range(3):
            again()
        took = []
        for _ in range(REPLAYS):
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            a.record()
            again()
            b.record()
            torch.cuda.synchronize()
            took.append(a.elapsed_time(b) / 1e3 / len(calls))
        del kept, graph
        return {"seconds": statistics.median(took), "eager_us": 1e6 * eager}

    def copy(self, numbers: int) -> float:
        """Bytes a second, read and written, of a copy of so many bfloat16."""
        held = [(self.drawn(1, numbers), self.drawn(1, numbers, seed=1)) for _ in range(self.sets(4 * numbers))]
        size = 2 * held[0][0].numel() * held[0][0].element_size()
        return size / self.seconds([lambda a=a, b=b: a.copy_(b) for a, b in held])["seconds"]


Ways = dict[str, Callable[..., Any]]


def kept_rows(size: Size, ratio: float, device: torch.device) -> torch.Tensor:
    """Rows that stay, rising in each sample: ``(batch, kept)``, numbered through the batch."""
    generator = torch.Generator().manual_seed(0)
    kept = size.tokens - int(ratio * size.tokens)
    rows = [torch.randperm(size.tokens, generator=generator)[:kept].sort().values + b * size.tokens for b in range(size.batch)]
    return torch.stack(rows).to(device)


def as_tomesd(x: torch.Tensor, index: torch.Tensor, size: Size, kept: torch.Tensor) -> torch.Tensor:
    local = index - torch.arange(size.batch, device=index.device)[:, None] * size.tokens
    wide = local[..., None].expand(-1, -1, size.width)
    fresh = torch.gather(x.unflatten(0, (size.batch, size.tokens)), 1, wide)
    out = kept.unflatten(0, (size.batch, size.tokens)).scatter(1, wide, fresh).flatten(0, 1)
    kept.copy_(out)
    return out


def fewest_passes(x: torch.Tensor, index: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    flat = index.reshape(-1)
    kept.index_copy_(0, flat, x.index_select(0, flat))
    return kept.clone()


def compared(bench: Bench, ways: Ways, sets: Sequence[tuple[Any, ...]], moved: int, peak: float, work: float = 0) -> dict[str, Any]:
    """One row of the table: each way on the same sets of tensors."""
    row: dict[str, Any] = {"bytes": moved, "sets": len(sets)}
    for name, way in ways.items():
        found = bench.seconds([lambda given=given, way=way: way(*given) for given in sets])
        row[name] = {"us": 1e6 * found["seconds"], "eager_us": found["eager_us"], "gb_per_s": moved / found["seconds"] / 1e9}
        row[name]["of_copy"] = moved / found["seconds"] / peak
        if work:
            row[name]["tflops"] = work / found["seconds"] / 1e12
    others = [name for name in ways if name != "kernel"]
    row["faster_than"] = {name: row[name]["us"] / row["kernel"]["us"] for name in others}
    return row


def rows_of(bench: Bench, size: Size, ratio: float, peak: float) -> dict[str, Any]:
    """Merge, unmerge, and both, at one size."""
    n, width = size.batch * size.tokens, size.width
    index = kept_rows(size, ratio, bench.device)
    inverse, m = inverse_of(index, n), index.numel()
    item = bench.drawn(1).element_size()
    count = bench.sets(2 * n * width * item)
    held = [
        (bench.drawn(n, width, seed=i), bench.drawn(m, width, seed=i + 1), bench.drawn(n, width, seed=i + 2)) for i in range(count)
    ]
    merge, unmerge = 2 * m * width * item + 8 * m, (2 * m + 2 * n - m) * width * item + 8 * n

    def both(of: Any) -> Callable[..., Any]:
        return lambda x, kept: of.fill_rows(of.take_rows((x,), index)[0].flatten(0, 1), inverse, kept)

    x, _, older = held[0]
    a, b, c, d = (older.clone() for _ in range(4))
    made, wanted = both(kernels)(x, a), both(reference)(x, b)
    same = torch.equal(made, wanted) and torch.equal(a, b)
    same = same and torch.equal(as_tomesd(x, index, size, c), wanted) and torch.equal(fewest_passes(x, index, d), wanted)
    pairs: Ways = {"kernel": both(kernels), "reference": both(reference)}
    pairs["as ToMeSD"] = lambda x, kept: as_tomesd(x, index, size, kept)
    pairs["fewest passes"] = lambda x, kept: fewest_passes(x, index, kept)
    take: Ways = {"kernel": lambda x: kernels.take_rows((x,), index), "reference": lambda x: reference.take_rows((x,), index)}
    fill: Ways = {
        "kernel": lambda fresh, kept: kernels.fill_rows(fresh, inverse, kept),
        "reference": lambda fresh, kept: reference.fill_rows(fresh, inverse, kept),
    }
    return {
        "size": size.name,
        "shape": [size.batch, size.tokens, size.width],
        "ratio": ratio,
        "equal": same,
        "merge": compared(bench, take, [(x,) for x, _, _ in held], merge, peak),
        "unmerge": compared(bench, fill, [(f, k) for _, f, k in held], unmerge, peak),
        "merge and unmerge": compared(bench, pairs, [(x, k) for x, _, k in held], merge + unmerge, peak),
    }


def sums_of(bench: Bench, size: Size, peak: float) -> list[dict[str, Any]]:
    """Weighted sums of one to four tensors, and a relative change, at one size."""
    shape, out = (size.batch, size.tokens, size.width), []
    item, numbers = bench.drawn(1).element_size(), size.batch * size.tokens * size.width
    weights = (1.75, -0.5, 0.25, -0.125)
    for count in (1, 2, 3, 4):
        sets = bench.sets((count + 1) * numbers * item)
        held = [tuple(bench.drawn(*shape, seed=i * count + j) for j in range(count)) for i in range(sets)]
        ways: Ways = {
            "kernel": lambda *h: kernels.weighted_sum(h, weights[: len(h)]),
            "reference": lambda *h: reference.weighted_sum(h, weights[: len(h)]),
        }
        off = (ways["kernel"](*held[0]).float() - ways["reference"](*held[0]).float()).abs().max()
        found = compared(bench, ways, held, (count + 1) * numbers * item, peak)
        out.append({"size": size.name, "what": f"weighted sum of {count}", "largest_difference": float(off), **found})
    held = [(bench.drawn(*shape, seed=2 * i), bench.drawn(*shape, seed=2 * i + 1)) for i in range(bench.sets(2 * numbers * item))]
    ways = {"kernel": kernels.change_sums, "reference": reference.change_sums}
    off = (kernels.change_sums(*held[0]) / reference.change_sums(*held[0]) - 1).abs().max()
    found = compared(bench, ways, held, 2 * numbers * item, peak)
    return [*out, {"size": size.name, "what": "relative change", "largest_difference": float(off), **found}]


def matching_of(bench: Bench, name: str, groups: int, s: int, d: int, width: int, peak: float) -> dict[str, Any]:
    item = bench.drawn(1).element_size()
    moved, work = groups * (s + d) * width * item + groups * s * 12, 2.0 * groups * s * d * width
    held = [(bench.drawn(groups, s, width, seed=2 * i), bench.drawn(groups, d, width, seed=2 * i + 1)) for i in range(2)]
    (score, match), (wanted, best) = kernels.most_alike(*held[0]), reference.most_alike(*held[0])
    ways: Ways = {"kernel": kernels.most_alike, "reference": reference.most_alike}
    found = compared(bench, ways, held, moved, peak, work)
    agree = {"largest_difference": float((score - wanted).abs().max()), "same_match": float((match == best).float().mean())}
    return {"what": name, "shape": [groups, s, d, width], **agree, **found}


def swept(bench: Bench, peak: float) -> list[dict[str, Any]]:
    """Other tiles than the chosen ones, at SD3-medium's size."""
    from omnicache.kernels import triton_match, triton_rows, triton_sums

    out, size = [], SIZES[0]

    def tried(module: Any, time_it: Callable[[], float], **values: Sequence[Any]) -> None:
        usual = {name: getattr(module, name) for name in values}
        for chosen in itertools.product(*values.values()):
            for name, one in zip(values, chosen, strict=True):
                setattr(module, name, one)
            try:
                said = [one.__doc__ if callable(one) else one for one in chosen]
                out.append({"module": module.__name__, **dict(zip(values, said, strict=True)), "us": time_it()})
            except Exception as bad:
                out.append({"module": module.__name__, "values": str(chosen), "error": str(bad)[:200]})
        for name, one in usual.items():
            setattr(module, name, one)

    n, width, index = size.batch * size.tokens, size.width, kept_rows(size, 0.5, bench.device)
    inverse = inverse_of(index, n)
    held = [(bench.drawn(n, width, seed=i), bench.drawn(n, width, seed=i + 1)) for i in range(bench.sets(4 * n * width))]
    moves = [lambda x=x, k=k: kernels.fill_rows(kernels.take_rows((x,), index)[0].flatten(0, 1), inverse, k) for x, k in held]
    rows = {"TILE": (1024, 2048, 4096, 8192), "WIDEST": (256, 512, 1024), "WARPS": (2, 4, 8)}
    tried(triton_rows, lambda: 1e6 * bench.seconds(moves)["seconds"], **rows)
    sums = [lambda h=h: kernels.weighted_sum(h, (1.5, -0.5)) for h in held]
    tried(triton_sums, lambda: 1e6 * bench.seconds(sums)["seconds"], BLOCK=(1024, 2048, 4096, 8192), WARPS=(4, 8))
    features = [(bench.drawn(2, 3072, width, seed=i), bench.drawn(2, 1024, width, seed=i + 9)) for i in range(2)]
    match = [lambda a=a, b=b: kernels.most_alike(a, b) for a, b in features]

    def tile(m: int, n: int, k: int) -> Callable[..., dict[str, Any]]:
        def fixed(*_: Any) -> dict[str, Any]:
            return {"M": m, "N": n, "K": k, "EVEN": True, "PRECISION": "ieee"}

        fixed.__doc__ = f"{m} x {n} x {k}"
        return fixed

    tiles = [tile(*t) for t in ((64, 64, 64), (64, 128, 64), (128, 64, 64), (128, 128, 64), (64, 256, 64), (128, 128, 32))]
    tried(triton_match, lambda: 1e6 * bench.seconds(match)["seconds"], tile_of=tiles, WARPS=(4, 8))
    return sorted(out, key=lambda row: (row["module"], row.get("us", float("inf"))))


def attempted(measure: Callable[..., Any], *given: Any) -> list[dict[str, Any]]:
    """Its rows, or one that says what went wrong: the others are measured all the same."""
    try:
        found = measure(*given)
        return found if isinstance(found, list) else [found]
    except Exception as bad:
        traceback.print_exc(limit=6)
        return [{"of": str(given[1:-1]), "error": f"{type(bad).__name__}: {bad}"[:300]}]


def shown(label: str, row: dict[str, Any]) -> None:
    times = ", ".join(f"{w} {row[w]['us']:.1f} us" for w in row["faster_than"])
    faster = ", ".join(f"{ratio:.2f}x {name}" for name, ratio in row["faster_than"].items())
    made = row["kernel"]
    print(f"{label:48s} {made['us']:8.1f} us  {made['gb_per_s']:7.0f} GB/s  {made['of_copy']:5.0%} of copy  {faster}  ({times})")


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "")
    ask.add_argument("--sweep", action="store_true", help="also try other tiles")
    ask.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels.json"))
    a = ask.parse_args()
    if not a.device:
        raise SystemExit(
            "There is no CUDA device here, and only there do these figures mean something. `--device cpu` tries the script."
        )
    bench = Bench(torch.device(a.device))
    sizes = SIZES if bench.cuda else TINY
    result: dict[str, Any] = {**environment(bench.device), "when": time.strftime("%Y-%m-%d"), "dtype": str(bench.dtype)}
    peak = bench.copy(2**29 if bench.cuda else 2**12)
    result["copy_gb_per_s"] = peak / 1e9
    result["copy_gb_per_s_at_size"] = {s.name: bench.copy(s.batch * s.tokens * s.width) / 1e9 for s in sizes}
    print(f"{result['device']}: a copy moves {peak / 1e9:.0f} GB/s; at size {rounded(result['copy_gb_per_s_at_size'], 0)}")
    matched = [("SD3-medium, 1 group", 2, 3072, 1024, 1536), ("SD3-medium, 8 groups", 16, 384, 128, 1536)]
    matched += [("SVD-XT tokens, 16 patches", 800, 432, 144, 320), ("SVD-XT frames, 1 patch", 2, 12, 13, 9216 * 320)]
    matched += [("SVD-XT frames, 16 patches", 32, 12, 13, 576 * 320), ("Latte-1 tokens, 16 patches", 512, 48, 16, 1152)]
    matched = matched if bench.cuda else [("tiny", 2, 48, 16, 32)]
    with torch.no_grad():
        result["rows"] = [row for s in sizes for ratio in s.ratios for row in attempted(rows_of, bench, s, ratio, peak)]
        result["sums"] = [row for s in sizes[:2] for row in attempted(sums_of, bench, s, peak)]
        result["matching"] = [row for m in matched for row in attempted(matching_of, bench, *m, peak)]
        if a.sweep and bench.cuda:
            result["sweep"] = attempted(swept, bench, peak)
    for row in (row for row in result["rows"] if "error" not in row):
        for what in ("merge", "unmerge", "merge and unmerge"):
            shown(f"{row['size']}, {row['ratio']:.0%} left out: {what}", row[what])
    for row in (row for row in (*result["sums"], *result["matching"]) if "error" not in row):
        shown(", ".join(filter(None, (row.get("size"), row["what"]))), row)
    for module in ("rows", "sums", "match"):
        for row in [row for row in result.get("sweep", ()) if row.get("module", "").endswith(module)][:3]:
            print(row)
    result |= {"gave_up": sorted(dispatch.without), "ungraphed": bench.ungraphed}
    result["all_equal"] = all(row.get("equal", False) for row in result["rows"])
    print(f"rows equal to the bit: {result['all_equal']}; kernels without a twin here: {result['gave_up'] or 'none'}")
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(rounded(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
