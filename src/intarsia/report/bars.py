"""Bars over names, as SVG."""

from __future__ import annotations

from html import escape

from intarsia.report.axes import Axis, LogAxis, span
from intarsia.report.drawing import (
    CHARACTER,
    NAME_CHARACTER,
    bounds,
    category_names,
    colour,
    frame,
    line,
    points,
    shorten,
    text,
    tip_of,
    values_of,
)
from intarsia.report.finding import Figure, Series
from intarsia.report.format import MISSING, clean, finite, interval, number


def draw_bars(figure: Figure, width: int) -> str:
    """Bars over names lie on their side: names stay readable at any length, on any screen."""
    names = category_names(figure)
    group = max(1, len(figure.series))
    longest = max((len(clean(name)) for name in names), default=1) * NAME_CHARACTER
    above = longest > width * 0.4  # names too long for a column of their own stand above their bars
    thick = 18 if group == 1 else 13
    texts = {
        (index, str(series.x[i])): worded(figure, series, i)
        for index, series in enumerate(figure.series)
        for i in points(series)
    }
    room = 10 + CHARACTER * max(map(len, texts.values()), default=1)
    low, high = span(values_of(figure), log=figure.log_y, zero=not figure.log_y, pad=0.0)
    left, right = 4.0 if above else longest + 14, width - room
    axis = (LogAxis if figure.log_y else Axis)(low, high, left, max(right, left + 40), figure.format)
    base = axis.start if figure.log_y else axis(0.0)
    aligned = low < 0 and not figure.log_y  # bars go both ways: the numbers keep to a column at the right
    slot = thick * group + 12 + (18 if above else 0)
    top = 6.0 + (16 if any(mark.axis == "y" and mark.text for mark in figure.marks) else 0)
    body, height = [], top + slot * len(names) + (20 if figure.y else 4)
    for row, name in enumerate(names):
        y = top + row * slot
        if above:
            body.append(text(left, y + 12, shorten(name, width - 8), kind="name"))
            y += 18
        else:
            body.append(text(left - 8, y + thick * group / 2 + 4, name, "end", "name"))
        for index, series in enumerate(figure.series):
            matches = [i for i in points(series) if str(series.x[i]) == name]
            if not matches:
                continue
            i, y_bar = matches[-1], y + index * thick
            value = series.y[i]
            low_i, high_i = bounds(series, i)
            end = axis(value) if finite(value) and not (figure.log_y and value <= 0) else base
            if end != base:
                title = f"<title>{escape(clean(tip_of(figure, series, i)))}</title>"
                box = f'x="{min(base, end):.1f}" y="{y_bar:.1f}" width="{abs(end - base):.1f}" height="{thick - 2}"'
                body.append(f'<rect class="bar {colour(index)}" {box} rx="1.5">{title}</rect>')
            reach = end
            if finite(low_i) and finite(high_i):
                a, b, mid = axis(low_i), axis(high_i), y_bar + thick / 2 - 1
                body.append(line(a, mid, b, mid, "whisker"))
                body += [line(v, mid - 3.5, v, mid + 3.5, "whisker") for v in (a, b)]
                reach = max(end, b)
            words = texts[(index, name)]
            at = (width - 2, "end") if aligned else (reach + 6, "start")
            body.append(text(at[0], y_bar + thick / 2 + 3.5, words, at[1], "value"))
    bottom = top + slot * len(names) - 4
    body.append(line(base, top - 3, base, bottom, "axis"))
    for mark in figure.marks:
        if mark.axis == "y" and finite(mark.value):
            x = axis(mark.value)
            anchor = "end" if x > (left + right) / 2 else "start"
            body += [line(x, top - 3, x, bottom, "mark"), text(x, 12, mark.text, anchor, "note")]
    if figure.y:
        body.append(text(left, height - 5, shorten(figure.y, width - left), kind="label"))
    return frame(figure, width, height, body)


def worded(figure: Figure, series: Series, i: int) -> str:
    value = series.y[i]
    spread = interval(value, *bounds(series, i), figure.format)
    return (number(value, figure.format) + (f" {spread}" if spread else "")) if finite(value) else MISSING
