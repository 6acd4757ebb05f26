"""The page of the comparison with peers: first where the tuned plan does not win, then each goal, then every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnicache.report import _human
from omnicache.report._svg import inline, vega_svg
from omnicache.report._template import render, written
from omnicache.report.peers_chart import ABOVE, BELOW, peers_chart

TOKENS = ("accent", "soft", "path-5", "path-2", "path-3", "path-4", "path-6", "path-7", "path-8")
"""Colours of the contenders, the judged one's first."""
FILE = "peers.json"
"""What it is drawn from, in the folder that the page is written to."""
BAD = ("misses", "loses", "even", "open")


def write_peers(result: Mapping[str, Any], out: Path) -> Path:
    """Write ``out/peers.html``, one file that opens without a network. ``result`` is that of ``omnicache bench --peers``."""
    names = [one["name"] for one in result["contenders"] if any(row["contender"] == one["name"] for row in result["rows"])]
    colours = dict(zip(names, TOKENS, strict=False))
    charts = {}
    for kind, (width, height) in {"wide": (880, 480), "narrow": (300, 400)}.items():
        alt = "PSNR over speedup of every setting; " + " ".join(one["sentence"] for one in result["verdicts"])
        charts[kind] = inline(vega_svg(peers_chart(result, colours, width, height)), f"peers-{kind}", alt)
    page = render(
        "peers.html.j2",
        model=result["model"],
        unit=result["unit"],
        headline=_headline(result),
        verdicts=[{**one, "bad": one["outcome"] in BAD} for one in result["verdicts"]],
        quick=result["quick"],
        left_out=sum(one["left_out"] for one in result["contenders"]),
        samples=result["samples"],
        tuning=result["tuning"],
        pairs=result["pairs"],
        setting=_setting(result),
        goals=[{"goal": f"{goal:g}", "rows": _rows(result, goal)} for goal in result["goals"]],
        charts=charts,
        key=[{"name": name, "token": token, "judged": name == result["judged"]} for name, token in colours.items()],
        below=f"{min(result['goals']) - BELOW:g}",
        above=f"{max(result['goals']) + ABOVE:g}",
        every=[{"name": name, "rows": _every(result, name)} for name in names],
        absent=_absent(result),
        took=f"{result['seconds'] / 60:.0f} minutes" if result["seconds"] > 90 else _human.seconds(result["seconds"]),
        command=result.get("command") or "omnicache bench --peers",
    )
    return written(page, out, "peers.html")


def _headline(result: Mapping[str, Any]) -> str:
    """The worst that came of it."""
    worst = result["verdicts"][0]["outcome"]
    where = " and ".join(f"{one['goal']:g} dB" for one in result["verdicts"] if one["outcome"] == worst)
    return {
        "misses": f"The tuned plan does not reach {where}",
        "loses": f"A rival is faster than the tuned plan at {where}",
        "even": f"At {where} a rival is not told apart from the tuned plan",
        "open": f"Not decided at {where}: not all of it was measured",
        "ahead": f"Faster than every rival, at {where} by less than 1.2 times",
        "wins": f"Faster than every rival at {where}",
    }[worst]


def _setting(result: Mapping[str, Any]) -> str:
    parts = [f"{result['steps']} steps"] + [f"guidance {result['guidance']:g}"] * (result["guidance"] is not None)
    parts += [f"{result['samples']} held-out and {result['tuning']} tuning {result['unit']}s, batches of {result['batch']}"]
    parts += [f"measured on {result['device']}", f"torch {result['torch']}"]
    parts += [f"{one['name']} {one['version']}" for one in result["contenders"] if one["version"]]
    loads = [one["held"]["load"] for one in result["chosen"] if one["held"] and one["held"]["load"] is not None]
    parts += [f"load average {min(loads):g} to {max(loads):g}"] * bool(loads)
    return " · ".join(parts)


def _rows(result: Mapping[str, Any], goal: float) -> list[dict[str, Any]]:
    """What each contender has reached at a goal, in words, the fastest first."""
    mine = [one for one in result["chosen"] if one["goal"] == goal]
    most = max((one["held"]["speedup"]["median"] for one in mine if one["held"]), default=1.0)
    duels = {(one["rival"], one["label"]): one for one in result["duels"] if one["goal"] == goal and "ratio" in one}
    made = []
    for one in sorted(mine, key=lambda one: -one["held"]["speedup"]["median"] if one["held"] else 0.0):
        row = {"contender": one["contender"], "judged": one["contender"] == result["judged"], "reached": one["held"] is not None}
        if one["held"] is None:
            made.append({**row, "said": _without(one)})
            continue
        held, duel = one["held"], duels.get((one["contender"], one["label"]))
        made.append(
            {
                **row,
                "label": one["label"],
                "share": round(100 * held["speedup"]["median"] / most, 1),
                "speedup": _human.times(held["speedup"]["median"]),
                "speed_span": _span(held["speedup"], 2),
                "whole": _human.times(held["whole"]["median"]),
                "psnr": _human.decibel(held["psnr"]["mean"]),
                "psnr_span": _span(held["psnr"], 1),
                "short": held["psnr"]["high"] < goal,
                "tuning": f"{_human.times(one['tuning']['speedup']['median'])} at {one['tuning']['psnr']['mean']:.1f} dB",
                "duel": _human.times(duel["ratio"]["median"]) if duel else "",
                "duel_span": _span(duel["ratio"], 2) if duel else "",
                "loses": bool(duel) and duel["ratio"]["median"] < 1,
            }
        )
    return made


def _without(one: Mapping[str, Any]) -> str:
    if one["label"] is not None:
        return f"{one['label']}: not measured on held-out inputs. {one['why']}"
    if one["why"]:
        return str(one["why"])
    near = one["nearest"]
    if near is None:
        return "No setting is faster than uncached."
    return (
        f"No setting reaches it. The nearest is {near['label']}: {_human.times(near['speedup']['median'])} at "
        f"{near['psnr']['mean']:.1f} dB on the tuning inputs."
    )


def _every(result: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    picked = {one["label"] for one in result["chosen"] if one["contender"] == name}
    rows = [row for row in result["rows"] if row["contender"] == name and row["state"] == "measured"]
    return [
        {
            "label": row["label"],
            "chosen": row["label"] in picked,
            "speedup": _human.times(row["speedup"]["median"]),
            "speed_span": _span(row["speedup"], 2),
            "whole": _human.times(row["whole"]["median"]),
            "psnr": _human.decibel(row["psnr"]["mean"]),
            "samples": row["samples"],
            "settled": row["settled"],
            "unsteady": not row["again"],
        }
        for row in sorted(rows, key=lambda row: row["speedup"]["median"])
    ]


def _absent(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What does not apply and why, settings with the same reason together."""
    made = [{"name": one["name"], "why": one["why"], "labels": []} for one in result["contenders"] if one["why"] is not None]
    for one in result["contenders"]:
        rows = [row for row in result["rows"] if row["contender"] == one["name"]]
        reasons = dict.fromkeys(row["why"] for row in rows if row["state"] == "refused")
        for why in reasons:
            made.append({"name": one["name"], "why": why, "labels": _labels(r for r in rows if r.get("why") == why)})
        nothing = [row for row in rows if row["state"] == "nothing"]
        if nothing:
            why = "Changes nothing on this model: the pictures are the uncached ones to the last bit, and no time is saved."
            made.append({"name": one["name"], "why": why, "labels": _labels(nothing)})
        if one["left_out"]:
            made.append({"name": one["name"], "why": f"There was no time left for {one['left_out']} settings.", "labels": []})
        if one.get("untried"):
            made.append({"name": one["name"], "why": one["untried"], "labels": []})
    return made


def _labels(rows: Any) -> list[str]:
    return [row["label"] for row in rows]


def _span(found: Mapping[str, float], digits: int) -> str:
    return f"{found['low']:.{digits}f} to {found['high']:.{digits}f}"


__all__: Sequence[str] = ["write_peers"]
