"""A comparison with peers as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

import omnicache
from omnicache import zoo
from omnicache.measure.comparison import environment, rounded
from omnicache.measure.peers.entry import Entry
from omnicache.measure.peers.scene import Spec
from omnicache.measure.peers.size import Size
from omnicache.measure.peers.verdict import ORDER, verdict


def result_of(
    spec: Spec,
    size: Size,
    entries: Sequence[Entry],
    chosen: Sequence[Mapping[str, Any]],
    duels: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Everything that was found.

    Returns:
        What was measured on what.
        ``verdicts``: for each goal an ``outcome`` and a ``sentence``, the worst first.
        ``chosen``: for each goal and contender the setting that was chosen on the ``tuning`` inputs, and its figures on ``held``
        ones; without a setting, its ``nearest``.
        ``duels``: the tuned plan against the best of its rivals, directly, or ``why`` not.
        ``rows``: every setting with its figures on the tuning inputs, and its ``state``: "measured", "nothing" (changed no
        picture and saved no time) or "refused" (``why`` is its own message); ``settled``, why its first batch was enough, or "".
        ``contenders``: with version and how many settings; ``why`` where none was tried; ``left_out``, for lack of time;
        ``untried``, what no setting stands for.
    """
    usual = zoo.call(spec.model)
    scale = next((value for key, value in usual.items() if key.endswith("guidance_scale")), None)
    packages = {name: metadata.version(name) for name in ("diffusers",)}
    judged = entries[0].contender.name
    verdicts = [verdict(chosen, duels, goal, judged) for goal in spec.goals]
    verdicts.sort(key=lambda one: ORDER.index(one["outcome"]))
    return rounded(
        {
            "model": spec.model,
            "unit": "picture" if zoo.frames(spec.model) == 1 else "clip",
            "steps": spec.steps or usual["num_inference_steps"],
            "guidance": spec.guidance if spec.guidance is not None else scale,
            "samples": size.samples,
            "tuning": size.tuning,
            "batch": size.batch,
            "pairs": {"every setting": size.first_pairs, "again": size.final_pairs, "chosen": size.pairs},
            "quick": size.quick,
            "threads": spec.threads,
            **environment(torch.device("cpu")),
            "omnicache": omnicache.__version__,
            **packages,
            "seconds": seconds,
            "goals": list(spec.goals),
            "judged": judged,
            "verdicts": verdicts,
            "chosen": [dict(one) for one in chosen],
            "duels": [dict(one) for one in duels],
            "contenders": [
                {
                    "name": entry.contender.name,
                    "kind": entry.contender.kind,
                    "version": entry.contender.version,
                    "settings": len(entry.rows),
                    "why": entry.why,
                    "left_out": len(entry.left_out),
                    "untried": entry.contender.untried,
                }
                for entry in entries
            ],
            "rows": [row for entry in entries for row in entry.rows],
        },
        5,
    )
