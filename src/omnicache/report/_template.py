"""Pages from their templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnicache.report._need import need


def render(name: str, **values: Any) -> str:
    """A template of this package, filled in."""
    jinja2 = need("jinja2")
    loader = jinja2.PackageLoader("omnicache.report")
    made = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return made.get_template(name).render(**values)


def written(page: str, out: Path, name: str = "index.html") -> Path:
    """The page as a file of the folder ``out``."""
    path = Path(out) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
