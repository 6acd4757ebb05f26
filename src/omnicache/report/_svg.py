"""Drawings inside the page: colours that follow the reader's light or dark mode, ids that do not clash."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from omnicache.report._need import need

# The light mode's colours. In an inline SVG each becomes the style sheet's variable of that name.
COLOURS = {
    "ink": "#1b1c1f",
    "muted": "#5b6067",
    "line": "#dcddd8",
    "ground": "#fdfdfb",
    "accent": "#0b6b5d",
    "soft": "#848a92",
    "warn": "#9a4708",
    "heat": "#0b4a45",
    "path-1": "#0c7263",
    "path-2": "#c2571a",
    "path-3": "#5a53b5",
    "path-4": "#b23a6e",
    "path-5": "#2f7fb8",
    "path-6": "#7f7a1c",
    "path-7": "#7a4a2b",
    "path-8": "#5f6b76",
}
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def vega_svg(chart: Any) -> str:
    """The SVG of an altair chart."""
    return str(need("vl_convert").vegalite_to_svg(_spec(chart)))


def vega_png(chart: Any, scale: float = 2) -> bytes:
    """The PNG of an altair chart, in the light mode's colours."""
    return bytes(need("vl_convert").vegalite_to_png(_spec(chart), scale=scale))


def _spec(chart: Any) -> dict[str, Any]:
    axis = {
        "labelColor": COLOURS["muted"],
        "titleColor": COLOURS["muted"],
        "gridColor": COLOURS["line"],
        "domainColor": COLOURS["line"],
        "tickColor": COLOURS["line"],
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelFlush": False,
    }
    legend = {"labelColor": COLOURS["muted"], "titleColor": COLOURS["muted"], "labelFontSize": 12, "titleFontSize": 12}
    legend["titleFontWeight"] = "normal"
    config = {
        "font": FONT,
        "axis": axis,
        "legend": legend,
        "view": {"stroke": None},
        "background": None,
        "padding": {"left": 12, "right": 12, "top": 6, "bottom": 6},
    }
    return {**chart.to_dict(), "config": config}


def variable(colour: str) -> str:
    """The style sheet's variable for one of the colours."""
    return next(f"var(--{token})" for token, known in COLOURS.items() if known == colour)


def inline(svg: str, name: str, alt: str) -> str:
    """An SVG to stand in a page: named for those who cannot see it, scaling with its column, without foreign addresses."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    opening, rest = svg.split(">", 1)
    rest = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", rest, flags=re.DOTALL)  # it would style the whole page
    box = re.search(r'viewBox="[^"]*"', opening)
    if box is None:
        raise ValueError("an SVG without a viewBox cannot be scaled")
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r'(xlink:)?href="#', f'href="#{name}-', rest)
    for token, colour in COLOURS.items():
        rest = re.sub(colour, f"var(--{token})", rest, flags=re.IGNORECASE)
    return f'<svg {box[0]} stroke-linejoin="round" role="img" aria-label="{escape(alt, quote=True)}">{rest}'
