"""The measured parts of docs/choosing.md, from results of ``omnicache bench`` and ``omnicache bench --peers``.

    omnicache bench --model emoji --methods all --out bench
    omnicache bench --peers --model emoji --steps 20 --out peers
    python -m benchmarks.choosing bench/bench.json peers/peers.json

Takes these results over into benchmarks/results/, as ``bench-MODEL.json`` and ``peers-MODEL-STEPS.json``. Of every
``bench-*.json`` there it writes a table between the marks in docs/choosing.md, and the chart of its frontier,
docs/images/frontier-MODEL.webp; of every ``peers-*.json`` the verdicts and what each contender reached. One table of all the
verdicts goes to the README, too.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.compact import write

from omnicache.guards import human_bytes
from omnicache.measure.comparison import rounded
from omnicache.measure.likeness import EQUAL
from omnicache.measure.peers.verdict import RIVALS

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, FRONT = ROOT / "benchmarks" / "results", ROOT / "docs" / "choosing.md", ROOT / "README.md"
MARKS = {"bench": ("<!-- measured: begin -->", "<!-- measured: end -->"), "peers": ("<!-- peers: begin -->", "<!-- peers: end -->")}
WORDS = {"worse": "behind fewer steps", "slower": "slower than uncached", "even": "even with fewer steps"}
ORDER = ("better", "beyond", "even", "worse", "slower")
SPARED = ("pairs", "seconds", "load")
"""Not kept of one setting of hundreds in a comparison with peers."""


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        take(path)
    for kind in MARKS:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(f"{kind}-*.json"))]
        put(PAGE, kind, measured(kind, found))
        if kind == "peers":
            put(FRONT, kind, glance(found))
        for result in found if kind == "bench" else ():
            picture(result)


def put(page: Path, kind: str, made: str) -> None:
    """Between the marks of a kind, in place of what is there."""
    begin, end = MARKS[kind]
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    page.write_text(f"{before}{begin}\n\n{made}\n{after}", encoding="utf-8")


def take(path: Path) -> Path:
    """Put a result among those of the repository: small, without each pair's seconds where it is one setting of hundreds, and
    without the folder that it was written to."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if "duels" in result:
        result["rows"] = [
            {k: v if k == "options" else rounded(v, 2) for k, v in row.items() if k not in SPARED} for row in result["rows"]
        ]
    result["command"] = re.sub(r" --out(=|\s+)\S+", "", result["command"])
    name = f"peers-{result['model']}-{result['steps']}" if "duels" in result else f"bench-{result['model']}"
    into = RESULTS / f"{name}.json"
    write(into, result)
    return into


def measured(kind: str, results: list[dict[str, Any]]) -> str:
    return "\n".join(line for result in results for line in (section if kind == "bench" else against)(result))


def glance(results: list[dict[str, Any]]) -> str:
    """The tuned plans of all models against the best rivals, in one table, the closest first."""
    lines = []
    for result in results:
        for verdict in result["verdicts"]:
            goal = verdict["goal"]
            ours = next(o for o in result["chosen"] if o["goal"] == goal and o["contender"] == result["judged"])
            duels = {duel["kind"]: duel for duel in result["duels"] if duel["goal"] == goal and "ratio" in duel}
            held = ours["held"]
            reached = [f"{held['speedup']['median']:.2f}×", f"{held['psnr']['mean']:.1f} dB"] if held else ["none", ""]
            cells = [f"`{result['model']}`, {result['steps']} steps", f"{goal:g} dB", *reached]
            for kind in RIVALS:
                duel = duels.get(kind)
                mine = [o for o in result["chosen"] if o["goal"] == goal and o["kind"] == kind]
                none = "none was tried" if not mine else "none reaches it"
                none = "not measured" if any(o["label"] is not None for o in mine) else none
                cells.append(f"{_span(duel['ratio'], 'median', 2)} {_rival(duel)}" if duel else none)
            lines.append((min((duel["ratio"]["median"] for duel in duels.values()), default=9.0), cells))
    head = ["model", "asked for", "speedup", "reached", "times as fast as the best peer", "as fewer steps, any solver"]
    rows = [head, ["---"] * len(head), *(cells for _, cells in sorted(lines, key=lambda one: one[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _rival(duel: dict[str, Any]) -> str:
    """By what tells it from others: the rest of its setting is in docs/choosing.md."""
    return f"{duel['rival']}: {duel['label'].split(',')[0]}" if duel["kind"] == "peer" else duel["label"]


def against(result: dict[str, Any]) -> list[str]:
    """One model's verdicts and, for each goal, what every contender's chosen setting does to held-out inputs."""
    unit = result["unit"]
    lines = [
        f"### {result['model']}, {result['steps']} steps",
        "",
        f"Settings were chosen on {result['tuning']} {unit}s and measured on {result['samples']} others; guidance "
        f"{result['guidance'] or 'none'}, {result['device']}, torch {result['torch']}, diffusers "
        f"{result['diffusers']}, load average {result['load_average'][0]:.1f}; {result['seconds'] / 60:.0f} minutes of measuring.",
        "",
        *[f"- {one['sentence']}" for one in result["verdicts"]],
        "",
        "| goal | contender | setting | speedup | PSNR (dB) |",
        "|---|---|---|---|---|",
    ]
    for goal in result["goals"]:
        mine = [one for one in result["chosen"] if one["goal"] == goal]
        for one in sorted(mine, key=lambda o: -o["held"]["speedup"]["median"] if o["held"] else 0.0):
            held, near = one["held"], one.get("nearest")
            if held is not None and held["psnr"]["mean"] >= EQUAL:
                cells = [f"{one['label']}: changes nothing", _span(held["speedup"], "median", 2), "equal"]
            elif held is not None:
                cells = [one["label"], _span(held["speedup"], "median", 2), _span(held["psnr"], "mean", 1)]
            elif near is not None:
                reached = f"{near['speedup']['median']:.2f} times at {near['psnr']['mean']:.1f}"
                cells = [f"none reaches it; the nearest, {near['label']}, {reached}", "", ""]
            else:
                cells = [one.get("why") or "none is faster than uncached", "", ""]
            lines.append("| " + " | ".join([f"{goal:g} dB", one["contender"], *cells]) + " |")
    absent = [f"- `{one['name']}`: not compared. {one['why']}" for one in result["contenders"] if one["why"] is not None]
    late = [f"{one['left_out']} of {one['name']}" for one in result["contenders"] if one["left_out"]]
    return [*lines, "", *absent, *([f"- There was no time for some settings: {', '.join(late)}."] if late else []), ""]


def section(result: dict[str, Any]) -> list[str]:
    """One model's chart and table: each method's best setting, those that are ahead of fewer steps first."""
    rows = {row["label"]: row for row in result["rows"]}
    unit, sides = result["unit"], result["sides"]
    loads = sorted(row["load"] for row in result["rows"] if row["load"] is not None)
    busy = f", load average {loads[len(loads) // 2]:.1f} in the middle" if loads else ""
    lines = [
        f"### {result['model']} ({result['class']}), {result['steps']} steps",
        "",
        f"{result['samples']} {unit}s, guidance {result['guidance'] or 'none'}, {result['device']}, torch {result['torch']}{busy}; "
        f"{result['seconds'] / 60:.0f} minutes of measuring. Speed is that of the denoiser; PSNR is to the uncached pictures of "
        "the same seeds. The lead is over fewer steps of the sampler at the same speed, sample by sample, with its 95 % interval. "
        "A method's best setting is the one with the largest lead. The last columns are what it keeps for one "
        f"{unit} at {', '.join(map(str, sides))} pixels a side.",
        "",
        f"![Speed against likeness on {result['model']}](images/frontier-{result['model']}.webp)",
        "",
        "| best setting | speedup | PSNR (dB) | lead (dB) | recognised | " + " | ".join(f"{side} px" for side in sides) + " |",
        "|---" * (5 + len(sides)) + "|",
    ]
    judged = [one for one in result["methods"] if one["verdict"] != "reference"]
    judged.sort(key=lambda one: (ORDER.index(one["verdict"]), -_lead(rows[one["best"]])))
    references = [{"best": row["label"], "memory": None} for row in result["rows"] if row["method"] == "fewer-steps"]
    for one in [*judged, *references]:
        row = rows[one["best"]]
        memory = [human_bytes(n) if n is not None else "" for n in one["memory"] or [None] * len(sides)]
        psnr = "identical" if row["psnr"]["mean"] >= 99.99 else _span(row["psnr"], "mean", 1)
        cells = [row["label"], _span(row["speedup"], "median", 2), psnr, _ahead(row), f"{row['recognised']['mean']:.0%}", *memory]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *[f"- `{one['method']}`: not shown. {one['why']}" for one in result["skipped"]]]
    if result["left_out"]:
        lines.append(f"- There was no time for: {', '.join(result['left_out'])}.")
    return [*lines, ""]


def picture(result: dict[str, Any]) -> None:
    """The chart, as docs/images/frontier-MODEL.webp."""
    from PIL import Image

    from omnicache.report._svg import vega_png
    from omnicache.report.frontier_chart import frontier_chart

    drawn = Image.open(io.BytesIO(vega_png(frontier_chart(result["rows"]), scale=1.5)))
    ground = Image.new("RGB", drawn.size, "white")
    ground.paste(drawn, mask=drawn.getchannel("A") if drawn.mode == "RGBA" else None)
    ground.save(ROOT / "docs" / "images" / f"frontier-{result['model']}.webp", quality=80, method=6)


def _lead(row: dict[str, Any]) -> float:
    return row["lead"]["mean"] if row["lead"] else 0.0


def _ahead(row: dict[str, Any]) -> str:
    if row["verdict"] == "reference":
        return ""
    if row["verdict"] == "slower":
        return WORDS["slower"]
    if row["lead"] is None:
        return "faster than any fewer steps"
    said = _span(row["lead"], "mean", 1)
    return f"{said}, {WORDS[row['verdict']]}" if row["verdict"] in WORDS else said


def _span(found: dict[str, float], middle: str, digits: int) -> str:
    return f"{found[middle]:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


if __name__ == "__main__":
    main()
