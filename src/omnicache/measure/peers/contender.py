"""What takes part in a comparison, and one way of using it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnicache.measure.peers.scene import Scene


@dataclass(frozen=True)
class Setting:
    """One way of using a contender: plain data, so that another process can be sent it.

    Attributes:
        options: what ``Contender.put`` is given; JSON.
        label: for people, unique within its contender.
    """

    options: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class Worn:
    """What putting a setting onto a pipeline has left to do.

    Attributes:
        call: arguments of the pipeline's call that change.
        around: entered around every call.
        off: called before the pipeline is thrown away: what was done to classes is undone here.
    """

    call: Mapping[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    off: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Contender:
    """A way of saving time, with all settings of it that are tried.

    Attributes:
        name: for people.
        kind: "ours", "peer" or "fewer steps".
        settings: what is tried on a scene's model; asked in the contender's own process.
        put: puts options onto the scene's freshly loaded pipeline. May raise whatever a peer raises.
        package: the distribution that it needs, which OmniCache itself never does; None if it needs none.
        neutral: options that must change no picture. Where they do, none of the contender's settings can be trusted on the model.
        untried: what of it no setting stands for, and why; "" if nothing.
    """

    name: str
    kind: str
    settings: Callable[[Scene], Sequence[Setting]]
    put: Callable[[Scene, Mapping[str, Any]], Worn]
    package: str | None = None
    neutral: Mapping[str, Any] | None = None
    untried: str = ""

    @property
    def version(self) -> str | None:
        """Of its package; None where it is not installed, or needs none."""
        try:
            return None if self.package is None else metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def contender(module: str) -> Contender:
    """The ``CONTENDER`` of a module."""
    return import_module(module).CONTENDER
