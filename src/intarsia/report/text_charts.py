"""Charts made of characters: sparklines, bars, dots and shades."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from intarsia.report.finding import Figure, Series
from intarsia.report.format import MISSING, clean, finite, interval, number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from intarsia.report.heatmap import Shade

SPARKS = "▁▂▃▄▅▆▇█"
SHADES = "·░▒▓█"
BELOW = "·.-=≡"  # the same five steps for values below zero
EIGHTHS = " ▏▎▍▌▋▊▉"
MOST_ROWS = 60
WORD = 10  # cells of a word in a heatmap


def lines(figure: Figure, width: int) -> Iterator[RenderableType]:
    """One sparkline a series, on a common scale."""
    from rich.text import Text

    every = [value for series in figure.series for value in series.y if _usable(value, figure)]
    if not every:
        yield Text("no values", style="dim")
        return
    low, high = min(every), max(every)
    names = [_cut(series.name, 24) for series in figure.series]
    label = max(map(len, names))
    room = max(8, min(48, width - label - 26))
    for name, series in zip(names, figure.series, strict=True):
        known = [value for value in series.y if _usable(value, figure)]
        if not known:
            yield Text(f"{name:<{label}}  {MISSING}")
            continue
        cells = _resample(series.y, room, figure)
        spark = "".join(_spark(value, low, high, figure.log_y) for value in cells)
        ends = f"{number(known[0], figure.format)} → {number(known[-1], figure.format)}"
        yield Text.assemble(
            f"{name:<{label}}  ", (f"{spark:<{min(room, len(cells))}}", "cyan"), f"  {ends}", overflow="fold"
        )
    x = next((series.x for series in figure.series if series.x), [])
    across = f"{figure.x or 'x'} {number(x[0])} … {number(x[-1])}, " if x else ""
    up = f"{figure.y or 'y'} {number(low, figure.format)} … {number(high, figure.format)}"
    yield Text(clean(across + up) + (" (log)" if figure.log_y else ""), style="dim")
    for mark in figure.marks:
        value = number(mark.value, figure.format if mark.axis == "y" else "")
        yield Text(clean(f"- - {mark.text or 'mark'}: {mark.axis} = {value}"), style="dim")


def bars(figure: Figure, width: int) -> Iterator[RenderableType]:
    """Bars lying on their side, grouped by name; the value with its interval stands behind each."""
    from rich.text import Text

    known = [value for series in figure.series for value in series.y if _usable(value, figure)]
    if not known:
        yield Text("no values", style="dim")
        return
    low = math.log10(min(known)) - 0.3 if figure.log_y else 0.0
    high = max((math.log10(v) if figure.log_y else abs(v)) for v in known)
    names = list(dict.fromkeys(x for series in figure.series for x in series.x))
    label = max(len(_cut(number(name), 28)) for name in names)
    second = max((len(_cut(s.name, 14)) for s in figure.series), default=0) if len(figure.series) > 1 else 0
    room = max(6, min(40, width - label - second - 28))
    for name in names[:MOST_ROWS]:
        first = True
        for series in figure.series:
            at = [i for i in range(min(len(series.x), len(series.y))) if series.x[i] == name]
            if not at:
                continue
            value = series.y[at[-1]]
            head = f"{_cut(number(name), 28) if first else '':<{label}}  "
            if second:
                head += f"{_cut(series.name, 14):<{second}}  "
            first = False
            if not _usable(value, figure):
                yield Text(head + MISSING)
                continue
            share = ((math.log10(value) if figure.log_y else abs(value)) - low) / ((high - low) or 1)
            spread = _spread(series, at[-1], figure.format)
            bar = _bar(share, room)
            yield Text.assemble(
                head, (bar, "red" if value < 0 else "cyan"), f" {number(value, figure.format)} {spread}".rstrip()
            )
    if len(names) > MOST_ROWS:
        yield Text(f"... {len(names) - MOST_ROWS:,} more", style="dim")
    if figure.y:
        yield Text(clean(figure.y) + (" (log)" if figure.log_y else ""), style="dim")


def scatter(figure: Figure, width: int) -> Iterator[RenderableType]:
    """Points as letters, a letter a series, in a small frame."""
    from rich.text import Text

    dots = [
        (letter, x, y)
        for letter, series in zip(_letters(figure.series), figure.series, strict=True)
        for x, y in zip(series.x, series.y, strict=False)
        if _usable(y, figure) and not (figure.log_x and not isinstance(x, str) and x <= 0)
    ]
    names = list(dict.fromkeys(x for _, x, _ in dots if isinstance(x, str)))
    places = [
        (letter, names.index(x) if isinstance(x, str) else math.log10(x) if figure.log_x else x,
         math.log10(y) if figure.log_y else y)
        for letter, x, y in dots
    ]  # fmt: skip
    places = [(letter, float(x), float(y)) for letter, x, y in places if finite(x)]
    if not places:
        yield Text("no values", style="dim")
        return
    across, down = max(16, min(60, width - 4)), 12
    xs, ys = [x for _, x, _ in places], [y for *_, y in places]
    canvas = [[" "] * across for _ in range(down)]
    for letter, x, y in places:
        c, r = round(_share(x, min(xs), max(xs)) * (across - 1)), round(_share(y, min(ys), max(ys)) * (down - 1))
        old = canvas[down - 1 - r][c]
        canvas[down - 1 - r][c] = letter if old in (" ", letter) else "*"
    for row in canvas:
        yield Text("│" + "".join(row), style="cyan")
    yield Text("└" + "─" * across)
    values = [y for _, _, y in dots]
    x_range = f"{clean(figure.x) or 'x'} {number(dots[0][1])}" if names else ""
    numbers = [x for _, x, _ in dots if not isinstance(x, str)]
    if numbers:
        x_range = f"{clean(figure.x) or 'x'} {number(min(numbers))} … {number(max(numbers))}"
    elif names:
        x_range = f"{clean(figure.x) or 'x'}: {', '.join(map(clean, names[:8]))}"
    y_range = f"{clean(figure.y) or 'y'} {number(min(values), figure.format)} … {number(max(values), figure.format)}"
    yield Text(f"{x_range}; {y_range}", style="dim")
    if len(figure.series) > 1:
        pairs = zip(_letters(figure.series), figure.series, strict=True)
        yield Text("  ".join(f"{letter} {clean(series.name)}" for letter, series in pairs), style="dim")


def heatmap(figure: Figure, width: int) -> Iterator[RenderableType]:
    """A character a cell, darker for more; long rows are thinned to the width there is. Cells with words show them."""
    from rich.text import Text

    from intarsia.report.heatmap import shade_of

    matrix = figure.matrix or []
    across = max(map(len, matrix), default=0)
    if not across:
        yield Text("no values", style="dim")
        return
    shade = shade_of(figure)
    names = [_cut(name, 20) for name in figure.row_names[: len(matrix)]]
    names += [str(r) for r in range(len(names), len(matrix))]
    label = max(map(len, names))
    room = max(8, width - label - 2)
    if figure.texts:
        yield from _worded(figure, shade, names, label, room)
        yield _heat_legend(figure, shade)
        return
    wide = 2 if across * 2 <= room else 1
    every = max(1, math.ceil(across / room))
    step = max(1, math.ceil(len(matrix) / MOST_ROWS))
    for name, row in list(zip(names, matrix, strict=True))[::step]:
        cells = Text(f"{name:>{label}}  ")
        for value in row[::every]:
            steps = BELOW if shade.diverging and finite(value) and value < 0 else SHADES
            level = steps[min(4, int(shade.strength(value) * 5))] if finite(value) else " "
            cells.append(level * wide, style="cyan" if steps is BELOW or not shade.diverging else "red")
        yield cells
    if figure.column_names:
        first, last = (
            _cut(figure.column_names[0], 20),
            _cut(figure.column_names[min(across, len(figure.column_names)) - 1], 20),
        )
        yield Text(f"{'':>{label}}  {first} … {last}", style="dim")
    yield _heat_legend(figure, shade)


def _heat_legend(figure: Figure, shade: Shade) -> RenderableType:
    from rich.text import Text

    what = f"{clean(figure.y)}: " if figure.y else ""
    high = number(shade.high, figure.format)
    if shade.diverging:
        low = number(-shade.high, figure.format)
        return Text(f"{what}{BELOW[-1]} {low}  {SHADES[0]} 0  {SHADES[-1]} {high}; blank: missing", style="dim")
    low = number(shade.low, figure.format)
    return Text(f"{what}{SHADES[0]} {low}  {SHADES[-1]} {high}; blank: missing", style="dim")


def _worded(figure: Figure, shade: Shade, names: list[str], label: int, room: int) -> Iterator[RenderableType]:
    """A word a cell behind the shade of its value; columns that do not fit stand in further blocks below."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    matrix, texts = figure.matrix or [], figure.texts or []
    across = max(map(len, matrix))
    heads = [*figure.column_names[:across], *map(str, range(len(figure.column_names), across))]
    words = [
        [
            clean(row[c]).strip().replace("\n", "↵") or ("␣" if row[c] else "") if c < len(row) else ""
            for c in range(across)
        ]
        for row in texts
    ]
    longest = max((cell_len(word) for row in words for word in row), default=1)
    wide = max(3, min(WORD, max(longest, *(cell_len(_cut(head, WORD)) for head in heads))))
    fit = max(1, room // (wide + 2))
    step = max(1, math.ceil(len(matrix) / MOST_ROWS))
    for start in range(0, across, fit):
        if start:
            yield Text("")
        columns = range(start, min(start + fit, across))
        head = "".join(" " + set_cell_size(_cut(heads[c].strip() or "␣", wide), wide) + " " for c in columns)
        yield Text(f"{'':>{label}}  {head}".rstrip(), style="bold")
        for r in range(0, len(matrix), step):
            line = Text(f"{names[r]:>{label}}  ")
            for c in columns:
                value = matrix[r][c] if c < len(matrix[r]) else None
                steps = BELOW if shade.diverging and finite(value) and value < 0 else SHADES
                level = min(4, int(shade.strength(value) * 5)) if finite(value) else 0
                style = "red" if shade.diverging and steps is SHADES else "cyan"
                line.append(steps[level] if finite(value) else " ", style=style)
                word = words[r][c] if r < len(words) else ""
                strong = "bold" if level >= 4 else "" if level >= 1 else "dim"
                line.append(set_cell_size(_cut(word, wide), wide) + " ", style=strong)
            yield line


def _usable(value: object, figure: Figure) -> bool:
    return finite(value) and not (figure.log_y and value <= 0)


def _resample(values: Sequence[float | None], room: int, figure: Figure) -> list[float | None]:
    """At most `room` values: the mean of what falls in each cell, None where nothing does."""
    if len(values) <= room:
        return [value if _usable(value, figure) else None for value in values]
    result: list[float | None] = []
    for cell in range(room):
        chunk = values[cell * len(values) // room : (cell + 1) * len(values) // room]
        known = [value for value in chunk if _usable(value, figure)]
        result.append(sum(value / len(known) for value in known) if known else None)
    return result


def _share(value: float, low: float, high: float) -> float:
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5


def _spark(value: float | None, low: float, high: float, log: bool) -> str:
    if value is None:
        return " "
    if log:
        value, low, high = math.log10(value), math.log10(low), math.log10(high)
    return SPARKS[min(7, max(0, int(_share(value, low, high) * 8)))]


def _bar(share: float, room: int) -> str:
    eighths = round(min(1.0, max(0.0, share)) * room * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip() or ("▏" if share > 0 else "")


def _spread(series: Series, i: int, spec: str) -> str:
    low = series.low[i] if series.low and i < len(series.low) else None
    high = series.high[i] if series.high and i < len(series.high) else None
    return interval(series.y[i], low, high, spec)


def _letters(series: Sequence[Series]) -> str:
    marks = "ox+#%&@abcdefghijklmnpqrstuvwyz"
    return "".join(marks[i % len(marks)] for i in range(len(series))) if len(series) > 1 else "o" * len(series)


def _cut(words: str, most: int) -> str:
    words = clean(words).replace("\n", "↵").replace("\t", " ")
    return words if len(words) <= most else words[: most - 1] + "…"
