"""The strokes every chart is made of, and what a series says about its points."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from intarsia.report.finding import Figure, Series
from intarsia.report.format import clean, finite, interval, number

WIDE, NARROW = 720, 343
CHARACTER = 6.5  # width of a character of axis text, on average
NAME_CHARACTER = 7.3  # and of a name beside a bar; generous, since fonts differ
SHAPES = 6  # series that differ in shape and colour; after that they repeat


def describe(figure: Figure) -> str:
    """The chart in words, for those who cannot see it."""
    if figure.kind == "heatmap":
        matrix = figure.matrix or []
        return f"Heatmap of {len(matrix)} rows by {max(map(len, matrix), default=0)} columns."
    pieces = [f"{figure.kind.capitalize()} chart of {figure.y or 'values'} over {figure.x or 'items'}."]
    for series in figure.series[:8]:
        known = [y for y in series.y if finite(y)]
        if known:
            low, high = number(min(known), figure.format), number(max(known), figure.format)
            pieces.append(f"{series.name}: {len(known)} points from {low} to {high}.")
    return " ".join(pieces)


def frame(figure: Figure, width: float, height: float, body: Sequence[str], natural: float | None = None) -> str:
    """The `<svg>` around a drawing. `natural` is the least width in pixels at which it can be read."""
    room = f' style="min-width:{natural:.0f}px"' if natural else ""
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {width:.0f} {height:.0f}"{room}>'
        f"<title>{escape(clean(figure.title))}</title><desc>{escape(clean(describe(figure)))}</desc>"
        f"{''.join(body)}</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "tick", turn: float = 0) -> str:
    """A text element; `turn` in degrees about its anchor."""
    rotate = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    at = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{at}{rotate}>{escape(clean(words))}</text>'


def shorten(words: str, room: float) -> str:
    """`words` cut to `room` units, with an ellipsis where something is missing."""
    words = clean(words).replace("\n", "↵")
    most = max(2, int(room / CHARACTER))
    return words if len(words) <= most else words[: most - 1] + "…"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def colour(index: int) -> str:
    """The CSS classes of a series: its colour, and its dash and shape. Beyond six, colours repeat with other dashes."""
    return f"c{index % SHAPES} d{(index + index // SHAPES) % SHAPES}"


def marker(index: int, x: float, y: float, r: float = 3.5, tip: str = "") -> str:
    """A point in the shape of its series, so that series differ in more than colour."""
    inside = f"<title>{escape(clean(tip))}</title>" if tip else ""
    kind, shape = f'class="dot {colour(index)}"', (index + index // SHAPES) % SHAPES
    if shape == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">{inside}</circle>'
    unit = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
        3: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        4: ((0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
        5: ((-0.5, -1.2), (0.5, -1.2), (0.5, 1.2), (-0.5, 1.2)),
    }[shape]
    points = " ".join(f"{x + dx * r:.1f},{y + dy * r:.1f}" for dx, dy in unit)
    return f'<polygon {kind} points="{points}">{inside}</polygon>'


def tip_of(figure: Figure, series: Series, index: int) -> str:
    """What a point says when pointed at."""
    x, y = series.x[index], series.y[index]
    words = []
    if series.labels and index < len(series.labels):
        words.append(series.labels[index])
    if series.name and len(figure.series) > 1:
        words.append(series.name)
    words.append(x if isinstance(x, str) else f"{figure.x or 'x'} {number(x)}")
    low, high = bounds(series, index)
    spread = interval(y, low, high, figure.format)
    return ", ".join(words) + f": {number(y, figure.format)}{' ' + spread if spread else ''}"


def points(series: Series) -> list[int]:
    """The indices of a series' points (a series whose x and y differ in length ends with the shorter)."""
    return list(range(min(len(series.x), len(series.y))))


def bounds(series: Series, index: int) -> tuple[float | None, float | None]:
    low = series.low[index] if series.low and index < len(series.low) else None
    high = series.high[index] if series.high and index < len(series.high) else None
    return low, high


def category_names(figure: Figure) -> list[str]:
    """All x names of all series, in order of first appearance."""
    return list(dict.fromkeys(str(series.x[i]) for series in figure.series for i in points(series)))


def values_of(figure: Figure) -> list[object]:
    marks = [mark.value for mark in figure.marks if mark.axis == "y"]
    bounds = [value for series in figure.series for value in [*(series.low or []), *(series.high or [])]]
    return [y for series in figure.series for y in series.y] + bounds + marks
