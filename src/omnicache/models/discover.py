"""Finds the sites of a model by its structure, without knowing its class."""

from __future__ import annotations

from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.models import unet
from omnicache.models.map import ModelMap, Site

MLP_ENDINGS = ("ff", "mlp", "ffn", "feed_forward", "feedforward", "ff_context", "mlp_context", "ff1", "ff2")
SELF_NAMES = ("attn", "attn1", "self_attn", "self_attention", "attention")
CROSS_NAMES = ("attn2", "cross_attn", "cross_attention", "crossattn")


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1].lower()


def _attends(module: nn.Module) -> bool:
    """Queries and keys by name, or torch's own attention."""
    return (hasattr(module, "to_q") and hasattr(module, "to_k")) or isinstance(module, nn.MultiheadAttention)


def is_attention(name: str, module: nn.Module) -> bool:
    """By its parts; by what it or its place calls itself only if it has parameters and does not wrap an attention."""
    if _attends(module):
        return True
    named = "attention" in type(module).__name__.lower() or _short(name) in (*SELF_NAMES, *CROSS_NAMES)
    inside = (m for m in module.modules() if m is not module)
    return named and any(True for _ in module.parameters()) and not any(map(_attends, inside))


def is_cross(name: str, module: nn.Module) -> bool:
    """By its place first: some classes call an attention cross that is given its own sequence."""
    short = _short(name)
    if short in CROSS_NAMES or "_to_" in short:
        return True
    return short not in SELF_NAMES and bool(getattr(module, "is_cross_attention", False))


def is_mlp(name: str, module: nn.Module) -> bool:
    short, kind = _short(name), type(module).__name__.lower()
    named = short in MLP_ENDINGS or short.endswith(("_mlp", "_ffn", "_ff"))
    has_parts = any(True for _ in module.children()) and not isinstance(module, (nn.ModuleList, nn.ModuleDict))
    return (named and has_parts) or "feedforward" in kind or kind.endswith("mlp")


def _is_row(blocks: nn.ModuleList) -> bool:
    """Two or more modules with parameters, or a single one that attends. Some lists hold None where a block lacks something."""
    if not len(blocks) or not all(block is not None and any(True for _ in block.parameters()) for block in blocks):
        return False
    return len(blocks) >= 2 or any(is_attention(name, m) for name, m in blocks[0].named_modules() if name)


def block_lists(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """Outermost lists of blocks that each hold at least a twentieth of the model's parameters; if none does, all of them."""
    tables = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}  # words are no work
    whole = sum(p.numel() for p in model.parameters() if p not in tables) or 1
    found: list[tuple[str, nn.ModuleList]] = []
    small: list[tuple[str, nn.ModuleList]] = []

    def look(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if isinstance(child, nn.ModuleList):
                if _is_row(child):
                    large = 20 * sum(p.numel() for p in child.parameters()) >= whole
                    (found if large else small).append((path, child))
                continue
            look(child, f"{path}.")

    look(model, "")
    return found or small


def _parts(block: nn.Module, prefix: str, layer: int, layers: int) -> list[Site]:
    """Attention and feed-forward sites inside a block, the outermost of each."""
    out: list[Site] = []

    def look(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            here = f"{path}.{name}"
            if is_attention(here, child):
                kind = "cross_attention" if is_cross(here, child) else "attention"
                out.append(Site(here, kind, (child,), layer=layer, layers=layers))
            elif is_mlp(here, child):
                out.append(Site(here, "mlp", (child,), layer=layer, layers=layers))
            else:
                look(child, here)

    look(block, prefix)
    return out


def _in_order(rows: list[list[tuple[str, nn.Module]]]) -> list[tuple[str, nn.Module]]:
    """All blocks in the order in which they are called: rows one after another, but blocks along time take turns with those
    along space where there are as many."""
    times = [bool(row) and Site(row[0][0], "block", ()).temporal for row in rows]
    if len(rows) == 2 and times in ([True, False], [False, True]) and len(rows[0]) == len(rows[1]):
        space, time = rows if times[1] else rows[::-1]
        return [block for pair in zip(space, time, strict=True) for block in pair]
    return [block for row in rows for block in row]


def discover(model: nn.Module) -> ModelMap:
    """All sites of ``model``.

    Raises:
        OmniCacheError: there is no list of blocks in it.
    """
    root = Site(type(model).__name__, "denoiser", (model,))
    if (net := unet.find(model)) is not None:
        numbered = [(i, name, part) for i, level in enumerate(net.levels) for name, part in level]
        sites = [s for i, name, part in numbered for s in _parts(part, name, i, len(net.levels))]
        names, layers = {m: n for n, m in model.named_modules()}, net.layers
        for each in layers:
            sites.append(Site(names[each.modules[0]], "layer", each.modules, "region", each.level, len(net.levels)))
        sites += [Site(names[module], "encoder", (module,), layers=len(net.levels)) for module in net.encoder]
        return ModelMap(model, "unet", (root, *sites), (net.entry,), net.below, tuple(each.parents for each in layers))

    lists = block_lists(model)
    named = _in_order([[(f"{path}.{i}", block) for i, block in enumerate(blocks)] for path, blocks in lists])
    if not named:
        raise OmniCacheError(
            f"{type(model).__name__} has no list of blocks, so there is nothing to reuse. "
            "Pass the denoiser itself (pipe.transformer, pipe.unet) or a module that holds its blocks in an nn.ModuleList."
        )
    sites = [Site("+".join(path for path, _ in lists), "stack", tuple(b for _, b in named), "chain", layers=len(named))]
    for i, (name, block) in enumerate(named):
        sites.append(Site(name, "block", (block,), "chain", layer=i, layers=len(named)))
        sites.extend(_parts(block, name, i, len(named)))
    return ModelMap(model, "transformer", (root, *sites), tuple(blocks[0] for _, blocks in lists))
