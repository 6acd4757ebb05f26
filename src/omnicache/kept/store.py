"""Results that outlive the process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Store:
    """A file of JSON lines, one a result, each under a key. What was put is on disk when ``put`` returns; a line that was cut short
    when the process was killed is passed over."""

    def __init__(self, path: str | Path):
        self.path, self._rows, self._torn = Path(path), dict[str, dict[str, Any]](), False
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                continue
        self._torn = bool(text) and not text.endswith("\n")

    def get(self, key: str) -> dict[str, Any] | None:
        """The newest result under this key."""
        return self._rows.get(key)

    def put(self, key: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a result."""
        kept = {"key": key, **row}
        line = json.dumps(kept, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._torn else "") + line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self._rows[key] = json.loads(line)  # as it will be read
        return self._rows[key]
