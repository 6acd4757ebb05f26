"""U-Nets: which modules lie below a skip connection.

diffusers' U-Nets keep ``down_blocks``, ``mid_block`` and ``up_blocks``. Every down block yields one skip tensor per resnet and
one for its downsampler; the first skip tensor of all is ``conv_in``'s. The up path takes them back in reverse.
"""

from __future__ import annotations

from torch import nn

Named = tuple[str, nn.Module]


def is_unet(model: nn.Module) -> bool:
    return isinstance(getattr(model, "down_blocks", None), nn.ModuleList) and isinstance(
        getattr(model, "up_blocks", None), nn.ModuleList
    )


def _layers(block: nn.Module) -> list[list[nn.Module]]:
    """The modules of a down or up block by layer: what runs for resnet ``i`` (its attentions and motion modules with it)."""
    lists = [child for child in block.children() if isinstance(child, nn.ModuleList)]
    resnets = getattr(block, "resnets", nn.ModuleList())
    per_layer = [m for m in lists if len(m) == len(resnets) and m not in _samplers(block)]
    return [[column[i] for column in per_layer] for i in range(len(resnets))]


def _samplers(block: nn.Module) -> list[nn.ModuleList]:
    found = (getattr(block, name, None) for name in ("downsamplers", "upsamplers"))
    return [m for m in found if isinstance(m, nn.ModuleList)]


def units(model: nn.Module) -> list[Named]:
    """Down blocks, mid block and up blocks, by name, in the order of their calls."""
    out: list[Named] = [(f"down_blocks.{i}", b) for i, b in enumerate(model.down_blocks)]  # type: ignore[arg-type]
    if isinstance(getattr(model, "mid_block", None), nn.Module):
        out.append(("mid_block", model.mid_block))  # type: ignore[arg-type]
    out += [(f"up_blocks.{i}", b) for i, b in enumerate(model.up_blocks)]  # type: ignore[arg-type]
    return out


def below(model: nn.Module, branch: int) -> tuple[nn.Module, ...]:
    """Modules that need not run when the up path's value at skip connection ``branch`` is known, in the order of their calls.

    Branch 0 is the skip of ``conv_in``; branch ``b`` the ``b``-th skip tensor after it. The last module is the one whose output
    is that value: the up path's layer (or upsampler) just before the layer that takes the skip tensor.
    Empty when there is no such branch or nothing lies below it.
    """
    downs, ups = list(model.down_blocks), list(model.up_blocks)  # type: ignore[arg-type]
    middle = getattr(model, "mid_block", None)
    mid = [middle] if isinstance(middle, nn.Module) else []

    # The down path as the makers of skip tensors 1, 2, ...: every layer, then the downsampler.
    makers: list[tuple[nn.Module, list[nn.Module]]] = []
    for block in downs:
        makers += [(block, layer) for layer in _layers(block)]
        makers += [(block, list(s)) for s in _samplers(block)]
    # The up path as their takers, in reverse: skip tensor k is taken by the k-th layer from the end.
    takers: list[tuple[nn.Module, list[nn.Module]]] = []
    for block in ups:
        layers = [(block, layer) for layer in _layers(block)]
        takers += layers
    if branch < 0 or branch >= len(makers) or len(takers) != len(makers) + 1:
        return ()

    first = len(takers) - 1 - branch  # the layer that takes skip tensor `branch`: the first of the up path to run
    skipped: list[nn.Module] = []
    for maker in makers[branch:]:
        skipped += maker[1]
    skipped += mid
    for i, (block, layer) in enumerate(takers[:first]):
        skipped += layer
        if takers[i + 1][0] is not block:
            skipped += [m for s in _samplers(block) for m in s]
    return _whole_blocks(skipped, downs, ups)


def _whole_blocks(skipped: list[nn.Module], downs: list[nn.Module], ups: list[nn.Module]) -> tuple[nn.Module, ...]:
    """The same with every block whose layers are all in it replaced by the block: one hook in place of many."""
    inside = {id(m) for m in skipped}
    out: list[nn.Module] = []
    done: set[int] = set()
    for module in skipped:
        if id(module) in done:
            continue
        for block in (*downs, *ups):
            parts = [m for layer in _layers(block) for m in layer] + [m for s in _samplers(block) for m in s]
            if any(m is module for m in parts) and all(id(m) in inside for m in parts):
                out.append(block)
                done.update(id(m) for m in parts)
                break
        else:
            out.append(module)
            done.add(id(module))
    return tuple(out)
