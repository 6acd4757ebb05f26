"""The compatibility table as a page, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """# What OmniCache works on

Written by `make compat`, which runs everything below on tiny random components: nothing is downloaded, and nothing is taken for
granted. Random weights tell whether the right things are computed and kept, and how much work is left out; they tell nothing
about how pictures look.

- **exact**: with a plan that computes every step, outputs equal those without OmniCache bit for bit.
- **static**: share of the work of an eight-step run that is skipped when every third step is computed (`fora`, by stack).
- **dynamic**: the same for a trigger that watches the run (`teacache`, with a threshold that only its first and last step meet).
- **forecast**: the same for `taylorseer`. **modules**: for `fora` as published, which keeps attention and feed-forward outputs.
- **still**: largest relative error of reuse when the model's inputs stand still: rounding, if all is wired rightly.
- **restored**: after `disable`, outputs, `state_dict` keys and attributes are what they were.

Work is counted by parameters of the modules that really run. On tiny models the parts around the blocks weigh much more than on
real ones, so the shares here are lower than what a real model saves.
"""


def _share(value: Any) -> str:
    return "-" if value is None else f"{value:.0%}"


def _yes(value: Any) -> str:
    return "-" if value is None else ("yes" if value else "**no**")


def page(denoisers: Sequence[Mapping[str, Any]], pipelines: Sequence[Mapping[str, Any]]) -> str:
    versions = next((r["versions"] for r in denoisers), ["?", "?", "?"])
    good = sum(bool(r["good"]) for r in denoisers)
    lines = [
        HEAD,
        f"OmniCache {versions[0]}, diffusers {versions[1]}, torch {versions[2]}.",
        "",
        f"## Denoisers: {good} of {len(denoisers)} classes",
        "",
        "| class | exact | static | dynamic | forecast | modules | still | restored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in sorted(denoisers, key=lambda r: r["name"].lower()):
        still = "-" if row["still"] is None else f"{row['still']:.0e}"
        shares = " | ".join(_share(row[k]) for k in ("static", "dynamic", "forecast", "modules"))
        lines.append(f"| {row['name']} | {_yes(row['exact'])} | {shares} | {still} | {_yes(row['restored'])} |")
        if not row["good"]:
            notes.append(f"- **{row['name']}**: " + "; ".join(row["notes"]))
    if notes:
        lines += ["", "What does not work, in OmniCache's own words:", "", *notes]
    if pipelines:
        lines += ["", *_pipelines(pipelines)]
    return "\n".join(lines) + "\n"


def _pipelines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ran = [r for r in rows if r.get("stage") == "ran"]
    deep = [r for r in ran if any((d.get("block") or d.get("deep") or 0) >= 2 for d in r["denoisers"].values())]
    lines = [
        f"## Pipelines: {len(ran)} of diffusers' own {len(rows)} test classes",
        "",
        "diffusers' test suite has a tiny pipeline for nearly every class. `python -m tests.compat.upstream` runs OmniCache on",
        "each, given a checkout of it; shares are of the work of all its denoisers in a run of about eight steps.",
        f"Work is skipped in a static way on {sum(map(_skips, deep))} of the {len(deep)} whose denoiser has two blocks or more, "
        f"and on {sum(map(_skips, ran)) - sum(map(_skips, deep))} of the {len(ran) - len(deep)} others.",
        "",
        "| pipeline | exact | static | dynamic | forecast | modules | restored |",
        "|---|---|---|---|---|---|---|",
    ]

    def share(row: Mapping[str, Any], key: str) -> str:
        skipped = (row.get(key) or {}).get("skipped") or {}
        return " / ".join(_share(v) for v in skipped.values()) or "-"

    for row in sorted(ran, key=lambda r: str(r["pipeline"]).lower()):
        shares = " | ".join(share(row, k) for k in ("static", "dynamic", "forecast", "modules"))
        exact = _yes((row.get("exact") or {}).get("same"))
        lines.append(f"| {row['pipeline']} | {exact} | {shares} | {_yes(row.get('restored'))} |")
    if others := [r for r in rows if r.get("stage") != "ran"]:
        lines += ["", "Not asked:", ""]
        lines += [f"- {r['name'].rpartition('::')[2]}: {WHY.get(r['stage'], r['stage'])}: {_first_line(r)}" for r in others]
    return lines


WHY = {"plain": "it fails without OmniCache, too", "timeout": "it takes too long", "denoisers": "it has nothing to cache"}


def _first_line(row: Mapping[str, Any]) -> str:
    return str(row.get("error") or row.get("refusal") or "").strip().partition("\n")[0]


def _skips(row: Mapping[str, Any]) -> bool:
    """Whether a static plan left out some work, whatever the part that a tiny model's blocks have in it."""
    found = [v for way in ("static", "deep", "modules") for v in ((row.get(way) or {}).get("skipped") or {}).values()]
    return any(share > 0.0005 for share in found)
