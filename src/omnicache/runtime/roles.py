"""What is to be done at which module, from the plan and the map of the model."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from omnicache.errors import OmniCacheError
from omnicache.models.map import ModelMap, Site
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.runtime.executors import (
    After,
    Around,
    ByColumns,
    Chain,
    Check,
    KeyWise,
    NeuronWise,
    Probe,
    Region,
    Role,
    Watch,
    Whole,
)
from omnicache.runtime.streams import Signature


class Roles(dict[nn.Module, tuple[Role, ...]]):
    """The roles on each module, from the outermost in.

    Attributes:
        governed: the sites that a policy governs; of several policies the first one has a site.
        guidance: the policy between the branches of guidance, and its site; None if there is none.
        absent: what the model does not have and the plan does without, as sentences.

    Raises:
        OmniCacheError: the model has nothing that a policy, trigger or signal of the plan needs.
    """

    def __init__(self, plan: Plan, model: ModelMap):
        self.plan, self.model = plan, model
        self.governed: set[Site] = set()
        self.guidance: tuple[Policy, Site] | None = None
        self.absent: list[str] = []
        self._signatures = _Signatures()
        self._found: dict[nn.Module, list[Role]] = {}
        self._probe()
        for policy in plan.policies:
            self._govern(policy)
        if plan.policies and not self.governed:
            raise OmniCacheError(needs(plan.method, plan.policies[0], model))
        self._check()
        super().__init__({module: tuple(sorted(roles, key=lambda r: r.rank)) for module, roles in self._found.items()})
        self._nest(model.model, None)

    def _add(self, module: nn.Module, role: Role) -> None:
        self._found.setdefault(module, []).append(role)

    def _nest(self, module: nn.Module, outer: Role | None) -> None:
        """Tell each role which one is around it."""
        for role in self.get(module, ()):
            role.outer = outer
            outer = role if isinstance(role, (ByColumns, Chain, Region, Whole)) else outer
        for child in module.children():
            self._nest(child, outer)

    def _govern(self, policy: Policy) -> None:
        sites = policy.where.select(self.model)
        if policy.which is not None:
            sites = tuple(s for s in sites if policy.which.suits(s))
        if not sites and policy.where.optional:
            self.absent.append(f"{type(self.model.model).__name__} has no {policy.where.called}; the rest is cached without.")
            return
        if not sites:
            raise OmniCacheError(needs(self.plan.method, policy, self.model))
        if all(site in self.governed for site in sites):
            raise OmniCacheError(
                f"{self.plan.method}: {policy.where} is governed by earlier policies of the plan already, so the policy "
                f"`{policy.when}, {policy.how}` would do nothing. Plans that are added must act on different parts of the model, "
                "such as whole blocks and the attention inside them."
            )
        for number, site in enumerate(sites):
            if site in self.governed:
                continue  # an earlier policy governs it
            self.governed.add(site)
            if site.kind == "guidance":
                self.guidance = policy, site
            elif site.layout == "whole":
                by_columns = policy.which is not None and policy.which.group
                kind = Whole if not by_columns else NeuronWise if site.kind == "mlp" else KeyWise
                self._add(site.modules[0], kind(site, policy, self._signatures, number))
            else:
                made = Chain if site.layout == "chain" else Region
                for i, module in enumerate(site.modules):
                    self._add(module, made(site, i, policy, self._signatures, number))
        if policy.which is not None and policy.which.shared:
            for name in dict.fromkeys(site.block for site in sites):
                block = self.model.model.get_submodule(name)
                self._add(block, Around(name, block, self._signatures))
        if policy.which is not None and policy.which.watch is not None:
            for site in policy.which.watch.select(self.model):
                self._add(site.modules[0], Watch(site, policy, self._signatures))

    def _check(self) -> None:
        for trigger in self.plan.triggers:
            if trigger.check is None:
                continue
            checked = trigger.check.select(self.model)
            if not checked:
                name = type(self.model.model).__name__
                raise OmniCacheError(f"{self.plan.method} checks itself in a row of blocks, and {name} has none.")
            for site in checked:
                self._add(site.modules[-1], Check(site, trigger))

    def _probe(self) -> None:
        model, name = self.model, type(self.model.model).__name__
        signals = list(dict.fromkeys(s for t in self.plan.triggers for s in t.signals))
        if any(s.at == "stack" for s in signals):
            if not model.entries:
                raise OmniCacheError(f"{self.plan.method} watches the first block, and {name} has none.")
            for entry in model.entries:
                inside = set(entry.modules())
                attention = tuple(s.modules[0] for s in model.all if "attention" in s.kind and s.modules[0] in inside)
                late = model.family == "unet"  # its first block attends after most of its work is done
                self._add(entry, Probe("stack", entry, self._signatures, () if late else attention))
        blocks = [site.modules[0] for site in model.sites("block")]
        depths = {s.at for s in signals if isinstance(s.at, int)}
        entered = depths or (blocks and any(p.how.needs_entry for p in self.plan.policies))
        for depth in sorted(depths | {0}) if entered else ():
            if not 0 <= depth < len(blocks):
                raise OmniCacheError(
                    f"{self.plan.method} watches what {depth} blocks do before the others run, and {name} has {len(blocks)}, "
                    "so that none is left to reuse. Take fewer."
                    if blocks
                    else f"{self.plan.method} needs a stack of blocks, as transformers have, and {name} has none."
                )
            self._add(blocks[depth], Probe(depth, blocks[depth], self._signatures))
        for signal in signals:
            if signal.at != "site":
                continue
            sites = signal.where.select(model) if signal.where is not None else ()
            if not sites:
                raise OmniCacheError(
                    f"{self.plan.method} watches what {signal.where} returns, and {name} has no such part."
                    if blocks
                    else f"{self.plan.method} watches blocks that run one after the other, and {name} has none."
                )
            shown = sites if signal.each else sites[:1]
            for i, site in enumerate(shown):
                self._add(site.modules[-1], After(signal, site.modules[-1], i, len(shown)))


class _Signatures(dict[nn.Module, Signature]):
    def __missing__(self, module: nn.Module) -> Signature:
        found = self[module] = Signature(module)
        return found


def around(model: nn.Module, hooked: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    """The modules that lie between the model and the hooked ones, by name."""
    names = {module: name for name, module in model.named_modules()}
    paths = {".".join(parts[:n]) for m in hooked for parts in [names.get(m, "").split(".")] for n in range(1, len(parts))}
    return [(path, model.get_submodule(path)) for path in sorted(paths)]


def needs(method: str, policy: Policy, model: ModelMap) -> str:
    """Why a policy has no site in a model, as a sentence."""
    from omnicache.granularity import Deep, Encoder, Nth

    name = type(model.model).__name__
    if isinstance(policy.where, (Deep, Encoder)) and model.family != "unet":
        return f"{method} needs a U-Net: {name} has no down and up path joined by skip connections."
    if isinstance(policy.where, Deep):
        return f"{method}: {name} has no skip connection number {policy.where.branch}. Try a smaller branch."
    if isinstance(policy.where, Nth) and policy.where.of not in (None, len(policy.where.where.select(model))):
        return (
            f"{method}: the plan is for {policy.where.of} modules, and {name} has {len(policy.where.where.select(model))}. "
            f"Calibrate one for it: omnicache.calibrate(pipe, inputs, {method!r})."
        )
    if policy.where.called:
        return f"{method} needs {policy.where.called}, and {name} has none."
    return (
        f"{method} finds nothing to cache in {name}: it has no blocks with the modules that the method replaces. "
        "Pass the denoiser (pipe.transformer, pipe.unet)."
    )
