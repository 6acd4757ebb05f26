"""Labels of points that keep clear of one another."""

from __future__ import annotations

# A label: its point, the ends of its spread, its text, its colour's name.
Wanted = tuple[tuple[float, float], tuple[float, float], str, str]


def place_labels(
    wanted: list[Wanted],
    clear: list[tuple[float, float]],
    taken: list[tuple[float, float, float, float]],
    size: int,
    width: float,
    height: float,
) -> list[tuple[float, float, str, str, str]]:
    """Where each label covers the least: x, y, align, text, colour's name.

    ``clear`` are places no label should cover, ``taken`` boxes (left, top, right, bottom) that hold other text.
    """
    taken, placed = list(taken), []
    for (px, py), (low, high), text, colour in wanted:
        long, tall = 0.56 * size * len(text), 1.25 * size

        def box(place: tuple[float, float, str], long: float = long, tall: float = tall) -> tuple[float, float, float, float]:
            x, y, align = place
            left = x - {"left": 0.0, "center": long / 2, "right": long}[align]
            return left, y - tall / 2, left + long, y + tall / 2

        def cost(place: tuple[float, float, str], px: float = px, py: float = py) -> float:
            left, top, right, bottom = box(place)
            outside = max(0, -left) + max(0, right - width) + max(0, -top) + max(0, bottom - height)
            over = sum(max(0, min(right, c) - max(left, a)) * max(0, min(bottom, d) - max(top, b)) for a, b, c, d in taken)
            hits = sum(left - 5 <= x <= right + 5 and top - 4 <= y <= bottom + 4 for x, y in clear if (x, y) != (px, py))
            return 60 * outside + 4 * over + 40 * hits + abs(place[0] - px) + 1.5 * abs(place[1] - py)

        places = []
        for far in (0, 14, 28, 44):
            for y in sorted({py - far, py + far}):
                places += [(max(px + 2, high) + 8, y, "left"), (min(px - 2, low) - 8, y, "right")]
            places += [(px, py - 15 - far, "center"), (px, py + 15 + far, "center")]
        best = min(places, key=cost)
        taken.append(box(best))
        placed.append((round(best[0], 1), round(best[1], 1), best[2], text, colour))
    return placed
