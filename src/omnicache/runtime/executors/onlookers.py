"""Roles that change nothing: they show selectors, triggers and checks what happens at a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnicache.kernels import relative_change
from omnicache.models.map import Site
from omnicache.policy import Decision, Policy, Trigger
from omnicache.runtime.executors.base import Proceed
from omnicache.runtime.streams import Args, Signature, tensors_of

if TYPE_CHECKING:
    from omnicache.runtime.evaluation import Pass


class Watch:
    """Shows a selector what happens at a site on computed steps."""

    rank = 5

    def __init__(self, site: Site, policy: Policy, signatures: Mapping[nn.Module, Signature]):
        self.site, self.policy, self.signature = site, policy, signatures[site.modules[0]]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        out = proceed(args, kwargs)
        if p.forced is None and not p.reuses(self.policy) and self.policy.which is not None:
            state = p.selector_state(self.policy)
            state = self.policy.which.observe(state, self.site, self.signature.bind(args, kwargs), out)
            p.set_selector_state(self.policy, state)
        return out


class Check:
    """Compares, at one site, what the estimates inside it lead to with what computing it gives, on the same input."""

    rank = 3

    def __init__(self, site: Site, trigger: Trigger):
        self.site, self.trigger = site, trigger

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        draft = proceed(args, kwargs)
        if p.forced is None and p.checks(self.trigger):
            with p.nested(Decision.COMPUTE):
                truth = proceed(args, kwargs)
            pairs = zip(tensors_of(draft), tensors_of(truth), strict=True)
            p.report_error(self.trigger, torch.stack([relative_change(a, b).max() for a, b in pairs]).max())
        return draft


class Probe:
    """Measures the signals that can be read at the first block, and so lets the triggers that wait for them decide."""

    rank = 1

    def __init__(self, block: nn.Module, signatures: Mapping[nn.Module, Signature]):
        self.block, self.signature = block, signatures[block]

    def __call__(self, p: Pass, proceed: Proceed, args: Args, kwargs: Mapping[str, Any]) -> Any:
        if p.forced is None:
            p.measure("stack", self.block, self.signature.bind(args, kwargs))
        return proceed(args, kwargs)
