"""Results as they lie in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, result: Any) -> None:
    """As JSON of one line: hundreds of rows with a number on each line are three times as large."""
    path.write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
