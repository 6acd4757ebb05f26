"""A plan: what to do, what it was made for, and what was measured. The thing that is saved and shared."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from omnicache import schema, weights, words
from omnicache.errors import OmniCacheError, nearest
from omnicache.guards import Guards
from omnicache.kept.files import whole
from omnicache.policy import VALUES, Policy, Trigger
from omnicache.predictors.from_kept import FromKept
from omnicache.predictors.hold import Hold
from omnicache.weights import Weights

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """An ordered set of policies for one model.

    Attributes:
        method: the name of the method that built it.
        policies: the clauses; earlier ones win where two govern one site.
        options: the options it was built with, for people.
        steps: share of the sampler's steps to run at all (below 1 only for ``fewer-steps``).
        min_steps: runs of fewer steps are left uncached: neighbouring steps differ too much to help.
        guards: limits that hold whatever the method.
        made_for: what it fits: ``{"model": ..., "num_inference_steps": ...}``; empty if it fits anything.
        measured: figures and curves of its calibration.
    """

    method: str
    policies: tuple[Policy, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: float = 1.0
    min_steps: int = 5
    guards: Guards = field(default_factory=Guards)
    made_for: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        schema.settle(self)
        for name in ("options", "made_for", "measured"):
            object.__setattr__(self, name, _settled(getattr(self, name)))
        if not 0 < self.steps <= 1:
            raise OmniCacheError(f"{self.method}: `steps` is a share of the sampler's, above 0 and up to 1, not {self.steps}.")
        for policy in self.policies:
            if policy.which is not None and not isinstance(policy.how, (Hold, FromKept)):
                raise OmniCacheError(
                    f"{self.method}: `which` refreshes rows of the last value, so it needs how=Hold(), or FromKept() to make them "
                    f"of others, not {policy.how}."
                )
            if policy.which is None and isinstance(policy.how, FromKept):
                raise OmniCacheError(f"{self.method}: FromKept() makes rows of others, and without `which` there are no others.")
        if sum(p.fix is not None for p in self.policies) > 1:
            raise OmniCacheError(f"{self.method}: only one policy of a plan can have a corrector (`fix`).")
        if any(p.ahead > 1 for p in self.policies) and (len(self.policies) > 1 or self.triggers[0].signals):
            raise OmniCacheError(
                f"{self.method}: `ahead` evaluates several steps at once, for plans of one policy whose trigger has no signals."
            )
        for policy in self.policies:
            if policy.when.signals and policy.fix is not None and policy.fix.rehearses:
                raise OmniCacheError(
                    f"{self.method}: {type(policy.fix).__name__} rehearses a step before it runs, and {policy.when} decides only "
                    "by what it sees while it runs, so nothing would be corrected. Take a trigger without signals, such as "
                    "Every(2) or Table(...), or leave `fix` out."
                )

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """The distinct triggers. Policies with equal triggers share one decision."""
        return tuple(dict.fromkeys(p.when for p in self.policies))

    @functools.cached_property
    def needs_grid(self) -> bool:
        """Whether any part of it must know how rows lie in a picture or film."""
        parts = [part for p in self.policies for part in (p.which, p.how)] + [s for t in self.triggers for s in t.signals]
        return any(part is not None and part.needs_grid for part in parts)

    @property
    def fixing(self) -> Policy | None:
        """The policy that has a corrector."""
        return next((p for p in self.policies if p.fix is not None), None)

    def misfit(self, scheduler: Any) -> str | None:
        """Why the plan cannot act on a scheduler's steps, as a sentence without its full stop; None if it can."""
        fixing = self.fixing
        return fixing.fix.misfit(scheduler) if fixing is not None and fixing.fix is not None else None

    def __add__(self, other: Plan) -> Plan:
        """Both at once: where this plan computes, ``other`` may still reuse parts inside, and the reverse.

        What either has measured holds for it alone, and is kept apart, as ``measured[method]``.

        Raises:
            OmniCacheError: they were made for different runs, or limit memory differently.
        """
        if not isinstance(other, Plan):
            raise OmniCacheError(
                f"A plan goes together with another plan, not with {other!r}: plan + omnicache.methods()[name].plan(...)."
            )
        both = f"{self.method}+{other.method}"
        for key in self.made_for.keys() & other.made_for.keys():
            if self.made_for[key] != other.made_for[key]:
                raise OmniCacheError(
                    f"{both}: the first plan was made for {key} = {self.made_for[key]}, the second for {other.made_for[key]}."
                )
        limits = {g for g in (self.guards, other.guards) if g != Guards()}
        if len(limits) > 1:
            raise OmniCacheError(f"{both}: each plan has its own memory limit; give one, guards=Guards(...), when you enable them.")
        if self.steps < 1 and other.steps < 1:
            raise OmniCacheError(f"{both}: both leave out steps of the sampler; one of them can.")
        return Plan(
            both,
            self.policies + other.policies,
            {self.method: self.options, other.method: other.options},
            min(self.steps, other.steps),
            max(self.min_steps, other.min_steps),
            next(iter(limits), Guards()),
            {**other.made_for, **self.made_for},
            {p.method: p.measured for p in (self, other) if p.measured},
        )

    def for_steps(self, total: int) -> Plan:
        """This plan for runs of ``total`` sampler steps: it computes the same share of them, and as much of it at each noise level.

        Nothing is measured anew, so that it says what was done and no figures. Rules that count steps ("every third") stay as they
        are, and so does all that does not depend on the number of steps.

        Raises:
            OmniCacheError: it holds numbers that are fitted to its own steps.
        """
        if not isinstance(total, int) or isinstance(total, bool) or total < 1:
            raise OmniCacheError(f"A run has a number of steps: plan.for_steps(20), not {total!r}.")
        was = self.made_for.get("num_inference_steps")
        if total == was:
            return self
        try:
            policies = tuple(_for_steps(p, total) for p in self.policies)
        except OmniCacheError as no:
            raise OmniCacheError(
                f"{self.method} cannot be carried over to {total} steps: {no}. Calibrate again with num_inference_steps={total}."
            ) from None
        told = {"carried_over": self.measured.get("carried_over", {"num_inference_steps": was})}
        return replace(self, policies=policies, made_for={**self.made_for, "num_inference_steps": total}, measured=told)

    def with_measured(self, **figures: Any) -> Plan:
        return replace(self, measured={**self.measured, **figures})

    def save(self, path: str | Path) -> Path:
        """Write the plan as a JSON file and return its path. Fitted tensors, if it has any, lie beside it: ``x.plan.safetensors``
        beside ``x.plan.json``."""
        target, text = Path(path), json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        if not target.name or target.is_dir():
            raise OmniCacheError(
                f"A plan is saved to a file, and {str(path)!r} is a folder: plan.save({str(target / 'my.plan.json')!r})."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        weights.write(target, self.tensors())
        return whole(target, lambda partial: partial.write_text(text))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The fitted tensors of its values, by the names that ``to_json`` gives them."""
        return {w.sha256: w.tensor for w in weights.weights_in((self.policies, self.options, self.measured))}

    def to_json(self) -> dict[str, Any]:
        return {
            "omnicache_plan": FORMAT,
            "method": self.method,
            "options": _encode(self.options),
            "made_for": _encode(self.made_for),
            "steps": self.steps,
            "min_steps": self.min_steps,
            "guards": _encode(self.guards),
            "policies": [_encode(p) for p in self.policies],
            "measured": _encode(self.measured),
        }

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            OmniCacheError: the file is missing, truncated, no plan, of another format, or names something unknown; or the tensors
                beside it are missing, or those of another plan.
        """
        source = Path(path)
        try:
            data = json.loads(source.read_text(), parse_constant=_refuse)
        except FileNotFoundError:
            raise OmniCacheError(f"There is no plan file {str(path)!r}. Make one with plan.save({str(path)!r}).") from None
        except OSError as no:
            raise OmniCacheError(
                f"{str(path)!r} cannot be read: {'it is a folder' if source.is_dir() else no.strerror or no}. Give a plan file."
            ) from None
        except (ValueError, RecursionError) as bad:
            raise OmniCacheError(
                f"{str(path)!r} is not a readable plan file ({bad}); it may be truncated. Calibrate again."
            ) from None
        return Plan.from_json(data, str(path), weights.read(source))

    @staticmethod
    def from_json(data: Any, source: str = "the plan", tensors: Mapping[str, torch.Tensor] | None = None) -> Plan:
        if not isinstance(data, dict) or "omnicache_plan" not in data:
            raise OmniCacheError(f"{source!r} is JSON, but not an OmniCache plan.")
        if data["omnicache_plan"] != FORMAT:
            raise OmniCacheError(
                f"{source!r} has plan format {data['omnicache_plan']!r}, this OmniCache reads {FORMAT}. Calibrate again."
            )
        try:
            known = tensors or {}
            policies = tuple(_decode(p, known) for p in data["policies"])
            if not all(isinstance(p, Policy) for p in policies):
                raise OmniCacheError(f"{source!r}: `policies` holds something that is no Policy.")
            return Plan(
                method=str(data["method"]),
                policies=policies,
                options=_plain(data["options"], known),
                steps=float(data["steps"]),
                min_steps=int(data["min_steps"]),
                guards=_decode(data["guards"], known) if "guards" in data else Guards(),
                made_for=_plain(data["made_for"], known),
                measured=_plain(data["measured"], known),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as bad:
            raise OmniCacheError(f"{source!r} is damaged: {type(bad).__name__}: {bad}. Calibrate again.") from None

    def __repr__(self) -> str:
        return f"<Plan {self.describe()}>"

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """The plan in words: its method and options, what it was made for, what was measured, and a clause a line."""
        fits, reached = words.fits(self.made_for), words.reached(self.measured)
        lines = [self.method + words.few_options(self.options) + (f" for {fits}" if fits else "")]
        lines += [f"  {reached}"] if reached else []
        lines += [f"  {self.steps:.0%} of the sampler's steps are run"] if self.steps < 1 else []
        lines += [f"  {words.clause(p)}" for p in self.policies[: words.FEW]]
        more = len(self.policies) - words.FEW
        return "\n".join(lines + [f"  … and {more} clause{'s' * (more > 1)} more"] * (more > 0))


def _for_steps(part: Any, total: int) -> Any:
    """A value for runs of ``total`` steps: by its own ``for_steps``, or by those of its parts."""
    if hasattr(part, "for_steps"):
        return part.for_steps(total)
    if is_dataclass(part) and not isinstance(part, type):
        own = {f.name: getattr(part, f.name) for f in fields(part) if f.init}
        new = {name: _for_steps(value, total) for name, value in own.items()}
        return replace(part, **new) if any(new[k] is not own[k] for k in own) else part
    if isinstance(part, tuple):
        new_parts = tuple(_for_steps(p, total) for p in part)
        return new_parts if any(a is not b for a, b in zip(new_parts, part, strict=True)) else part
    return part


def _encode(part: Any) -> Any:
    if is_dataclass(part) and not isinstance(part, type):
        name = type(part).__name__
        if VALUES.get(name) is not type(part):
            raise OmniCacheError(f"{name} cannot be saved: put @omnicache.policy.value on its class.")
        return {"is": name, **{f.name: _encode(getattr(part, f.name)) for f in fields(part)}}
    if isinstance(part, Mapping):
        return {str(k): _encode(v) for k, v in part.items()}
    if isinstance(part, (tuple, list)):
        return [_encode(v) for v in part]
    if isinstance(part, float) and not math.isfinite(part):
        return {"is": "float", "of": str(part)}  # JSON has no infinity
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, Weights):
        return part.to_json()
    raise OmniCacheError(
        f"A plan can hold numbers, strings, lists, Weights and values; not {type(part).__name__}: put @omnicache.policy.value on "
        "its class."
    )


def _decode(part: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(part, dict) and part.get("is") == "float":
        return float(part["of"])
    if isinstance(part, dict) and part.get("is") == "Weights":
        return Weights.from_json(part, tensors)
    if isinstance(part, dict) and "is" in part:
        cls = VALUES.get(part["is"])
        if cls is None:
            raise OmniCacheError(
                f"The plan names {part['is']!r}, which this OmniCache does not have.{nearest(str(part['is']), VALUES)} "
                "Import the module that defines it first, or update OmniCache."
            )
        known = {f.name for f in fields(cls)}
        given = {k: _decode(v, tensors) for k, v in part.items() if k != "is"}
        if unknown := set(given) - known:
            raise OmniCacheError(f"The plan gives {part['is']} the option {sorted(unknown)[0]!r}, which it does not have.")
        try:
            return cls(**given)
        except OmniCacheError as bad:
            raise ValueError(str(bad).rstrip(".")) from None
    return _plain(part, tensors)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _settled(part: Any) -> Any:
    """Lists as tuples and keys as strings: what comes back from a file, so that a plan equals itself after a round trip."""
    if isinstance(part, Mapping):
        return {str(k): _settled(v) for k, v in part.items()}
    return tuple(_settled(v) for v in part) if isinstance(part, (tuple, list)) else part


def _plain(part: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Lists become tuples, so that frozen values stay hashable and a plan equals itself after a round trip."""
    if isinstance(part, dict):
        return _decode(part, tensors) if "is" in part else {k: _plain(v, tensors) for k, v in part.items()}
    if isinstance(part, list):
        return tuple(_decode(v, tensors) for v in part)
    return part
