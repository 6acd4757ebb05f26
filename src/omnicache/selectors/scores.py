from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

import torch

from omnicache.granularity import Attention
from omnicache.models.map import Site
from omnicache.policy import Chosen, Rows, Selector, Where, value
from omnicache.runtime.step import Step
from omnicache.schema import Range

PART = 2**24
"""Attention probabilities computed at once: 64 MiB of them."""


@value
class TokenScores(Selector):
    """ToCa's choice of tokens (arXiv 2410.05317, eq. 5 to 10): attention received, staleness, spatial spread.

    ``score = s1 + age_weight * age / interval``, and in each ``cell x cell`` square of the token grid the best token's score
    is multiplied by ``1 + spread``. The share of tokens computed is
    ``ratio * (1 + step_slope (1 - 2 p)) * (1 + layer_slope (1 - 2 l / (L - 1))) * module``, clamped to [0, 1], with ``p`` the
    share of steps that lie *ahead*, ``l`` the block and ``L`` the number of blocks.

    ``s1`` needs the attention probabilities, which are computed on computed steps from the site's queries and keys and
    averaged over heads; a module without ``to_q`` and ``to_k`` gives none, and tokens are then chosen by age and place (so are
    text tokens of joint attention). Attention to another sequence is not asked: it says nothing of what tokens receive.
    """

    ratio: Annotated[float, Range(0)] = 0.07
    interval: Annotated[int, Range(1)] = 3
    step_slope: float = 2.0
    layer_slope: float = -0.2
    module: Annotated[float, Range(0)] = 2.5
    age_weight: Annotated[float, Range(0)] = 0.25
    cell: Annotated[int, Range(1)] = 2
    spread: Annotated[float, Range(0)] = 0.6
    watch: Where | None = field(default_factory=Attention)

    def init(self) -> Any:
        return {}, {}

    def observe(self, state: Any, site: Site, bound: Mapping[str, Any], output: Any) -> Any:
        received, ages = state
        if site.kind == "cross_attention":
            return state
        x = bound.get("hidden_states")
        score = attention_received(site.modules[0], x) if isinstance(x, torch.Tensor) else None
        # A computed step computes every token, so no age is left.
        return {**received, site.block: score}, {k: v for k, v in ages.items() if k.block != site.block}

    def share(self, step: Step, layer: int, layers: int) -> float:
        """The share of tokens that block ``layer`` of ``layers`` computes at ``step``."""
        ahead = (step.total - 1 - step.index) / step.total if step.total else 0.5
        by_step = 1 + self.step_slope * (1 - 2 * ahead)
        by_layer = 1 + self.layer_slope * (1 - 2 * layer / max(layers - 1, 1))
        return min(max(self.ratio * by_step * by_layer * self.module, 0.0), 1.0)

    def choose(self, state: Any, site: Site, step: Step, rows: Rows) -> tuple[Chosen | None, Any]:
        x = rows.x
        received, ages = state
        tokens = x.shape[1]
        count = int(self.share(step, site.layer, site.layers) * tokens)
        age = ages.get(site)
        age = torch.zeros(x.shape[:2], device=x.device) if age is None else age
        if count == 0:
            return None, (received, {**ages, site: age + 1})
        score = received.get(site.block)
        score = torch.zeros(x.shape[:2], device=x.device) if score is None or score.shape != age.shape else score
        score = score + self.age_weight * age / self.interval
        side = math.isqrt(tokens)
        if self.spread and side * side == tokens and side % self.cell == 0:
            score = spread_out(score, side, self.cell, self.spread)
        index = score.topk(count, dim=1).indices.sort(dim=1).values
        entries = tokens * torch.arange(len(x), device=x.device)[:, None]
        return Chosen(index + entries), (received, {**ages, site: (age + 1).scatter(1, index, 0.0)})


def attention_received(attention: torch.nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """How much attention each token receives from all others, averaged over heads, unit L2 over tokens: ``(batch, n)``.

    From the module's own queries, keys and their norms. Rotary embeddings, masks and biases, and the text tokens of joint
    attention are not taken into account: they are known to the module's processor alone. Queries are taken in parts, so that no
    more than ``PART`` probabilities exist at once.
    """
    to_q, to_k = getattr(attention, "to_q", None), getattr(attention, "to_k", None)
    if to_q is None or to_k is None or x.ndim != 3:
        return None
    heads = int(getattr(attention, "heads", 1))
    q = _split(to_q(x), getattr(attention, "norm_q", None), heads)
    k = _split(to_k(x), getattr(attention, "norm_k", None), heads)
    if q is None or k is None or q.shape != k.shape:
        return None
    scale = float(getattr(attention, "scale", q.shape[-1] ** -0.5))
    received = torch.zeros(q.shape[:3], device=x.device)
    rows = max(1, PART // max(1, q.shape[0] * heads * q.shape[2]))
    for part in q.split(rows, dim=2):
        received += torch.softmax(part @ k.transpose(-1, -2) * scale, dim=-1).float().sum(dim=2)
    received = received.mean(dim=1)
    return received / received.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _split(projected: torch.Tensor, norm: Any, heads: int) -> torch.Tensor | None:
    """Queries or keys by head, ``(batch, heads, n, d)``, normed over the head or, as some models do it, over all heads."""
    width = projected.shape[-1]
    if width % heads:
        return None
    weight = getattr(norm, "weight", None)
    over_all = heads > 1 and isinstance(weight, torch.Tensor) and weight.numel() == width
    if norm is not None and over_all:
        projected = norm(projected)
    split = projected.unflatten(-1, (heads, -1)).transpose(1, 2)
    return norm(split) if norm is not None and not over_all else split


def spread_out(score: torch.Tensor, side: int, cell: int, bonus: float) -> torch.Tensor:
    """Scores ``(batch, side * side)`` with the best token of every ``cell x cell`` square raised by ``1 + bonus``."""
    n = side // cell
    cells = score.view(-1, n, cell, n, cell).transpose(2, 3).reshape(-1, n * n, cell * cell)
    best = torch.zeros_like(cells).scatter(2, cells.argmax(2, keepdim=True), bonus)
    raised = cells * (1 + best)
    return raised.view(-1, n, n, cell, cell).transpose(2, 3).reshape(score.shape)
