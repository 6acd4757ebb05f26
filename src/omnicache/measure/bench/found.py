"""What is known of one setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omnicache.measure.bench.setting import Setting


@dataclass
class Found:
    """What is known of a setting: rows of the store, or why there is none."""

    setting: Setting
    key: str
    first: dict[str, Any] | None = None
    closely: dict[str, Any] | None = None
    memory: list[int | None] | None = None
    refused: str | None = None

    @property
    def row(self) -> dict[str, Any] | None:
        """The best figures that there are."""
        return self.closely or self.first
