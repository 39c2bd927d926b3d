"""Figures as inline SVG.

Own code instead of matplotlib, for what a shared page needs and a fixed picture cannot give: the drawing takes its
colours and font from the page (light, dark and print from one file), is drawn twice so that its text stays legible
both on a desk and on a phone, holds real text and a tip for every point, weighs a few kilobytes, and has the same bytes
on every machine. It also spares the core install a large dependency. `Figure` has four kinds of chart, and they are all
there is."""

from __future__ import annotations

from html import escape

from intarsia.report.axes import Axis, Categories, LogAxis, span
from intarsia.report.bars import draw_bars
from intarsia.report.drawing import (
    CHARACTER,
    WIDE,
    bounds,
    category_names,
    colour,
    frame,
    line,
    marker,
    points,
    shorten,
    text,
    tip_of,
    values_of,
)
from intarsia.report.finding import Figure, Series
from intarsia.report.format import clean, finite
from intarsia.report.heatmap import draw_heatmap
from intarsia.report.labelling import Labels

MOST_MARKERS = 48


def draw(figure: Figure, width: int = WIDE) -> str:
    """The chart as one `<svg>` element, `width` units wide; a reader's CSS gives it colours (`assets/style.css`)."""
    if figure.kind == "heatmap":
        return draw_heatmap(figure, width)
    if figure.kind == "bar" and any(isinstance(x, str) for series in figure.series for x in series.x):
        return draw_bars(figure, width)
    return _plot(figure, width)


def legend(figure: Figure) -> list[tuple[str, str]]:
    """(sample drawing, name) of every series of a chart that has several."""
    if figure.kind == "heatmap" or len(figure.series) < 2:
        return []
    samples = []
    for index, series in enumerate(figure.series):
        if figure.kind == "bar":
            body = f'<rect class="bar {colour(index)}" x="3" y="2" width="16" height="10" rx="2"/>'
        elif figure.kind == "line":
            body = line(0, 7, 22, 7, f"curve {colour(index)}") + marker(index, 11, 7)
        else:
            body = marker(index, 11, 7, 4)
        sample = f'<svg class="sample" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true">{body}</svg>'
        samples.append((sample, clean(series.name)))
    return samples


def _plot(figure: Figure, width: int) -> str:
    """Lines, scatter, and bars over a numeric x."""
    height = 300 if width == WIDE else 240
    named = any(isinstance(x, str) for series in figure.series for x in series.x)
    is_bar = figure.kind == "bar"
    low, high = span(values_of(figure), log=figure.log_y, zero=is_bar and not figure.log_y)
    top, bottom = 14.0 if not figure.y else 26.0, height - (44.0 if figure.x else 26.0)
    y_axis = (LogAxis if figure.log_y else Axis)(low, high, bottom, top, figure.format)
    y_ticks = y_axis.ticks(5)
    left = 12 + CHARACTER * max((len(words) for _, words in y_ticks), default=1)
    right = width - 14.0
    if named:
        x_axis = Categories(category_names(figure), left, right)
        widest = max((len(clean(name)) for name in x_axis.names), default=1)
        most = int((right - left) / (CHARACTER * min(widest, 14) + 8))
    else:
        marks = [mark.value for mark in figure.marks if mark.axis == "x"]
        values = [x for series in figure.series for x in series.x] + marks
        count = max((len(series.x) for series in figure.series), default=1)
        x_low, x_high = span(values, log=figure.log_x, pad=0.6 / max(1, count - 1) if is_bar else 0.02)
        whole = all(float(x).is_integer() for x in values if finite(x))
        x_axis = (LogAxis if figure.log_x else Axis)(x_low, x_high, left, right, whole=whole)
        most = int((right - left) / 62)
    body = []
    for value, words in y_ticks:
        body.append(line(left, y_axis(value), right, y_axis(value), "grid"))
        body.append(text(left - 6, y_axis(value) + 4, words, "end"))
    for value, words in x_axis.ticks(most):
        body.append(line(x_axis(value), bottom, x_axis(value), bottom + 4, "axis"))
        body.append(text(x_axis(value), bottom + 17, shorten(words, 15 * CHARACTER), "middle"))
    body.append(line(left, bottom, right, bottom, "axis"))
    if figure.y:
        body.append(text(2, 12, shorten(figure.y, width - 8), kind="label"))
    if figure.x:
        body.append(text((left + right) / 2, height - 8, shorten(figure.x, right - left), "middle", "label"))

    labels = Labels(left, right, top, bottom)
    slots = max((len(series.x) for series in figure.series), default=1)
    for index, series in enumerate(figure.series):
        shown = [i for i in points(series) if finite(series.y[i]) and (named or finite(series.x[i]))]
        if figure.log_y:
            shown = [i for i in shown if series.y[i] > 0]
        place = {i: (x_axis(str(series.x[i]) if named else series.x[i]), y_axis(series.y[i])) for i in shown}
        if is_bar:
            body += _columns(figure, series, index, place, y_axis, (right - left) / (slots + 1))
        elif figure.kind == "line":
            body += _curve(figure, series, index, place, y_axis)
        else:
            body += _scatter(figure, series, index, place, y_axis, labels)
    for mark in figure.marks:
        body += _mark(mark, x_axis, y_axis, named, labels)
    if not any(finite(y) for series in figure.series for y in series.y):
        body.append(text((left + right) / 2, (top + bottom) / 2, "no values", "middle", "label"))
    return frame(figure, width, height, body)


def _mark(mark, x_axis, y_axis, named: bool, labels: Labels) -> list[str]:
    left, right, top, bottom = labels.left, labels.right, labels.top, labels.bottom
    if mark.axis == "y" and finite(mark.value):
        y = y_axis(mark.value)
        words = labels.at(right, y - 5, mark.text, "end") or labels.at(left + 4, y - 5, mark.text, "start")
        return [line(left, y, right, y, "mark"), *words]
    if mark.axis == "x" and (str(mark.value) in x_axis.places if named else finite(mark.value)):
        x = x_axis(str(mark.value) if named else mark.value)
        anchor = "start" if x < (left + right) / 2 else "end"
        return [
            line(x, top, x, bottom, "mark"),
            *labels.at(x + (5 if anchor == "start" else -5), top + 11, mark.text, anchor),
        ]
    return []


def _curve(figure: Figure, series: Series, index: int, place: dict[int, tuple[float, float]], y_axis) -> list[str]:
    """A line with its interval as a band; a missing value is a gap in it."""
    runs: list[list[int]] = []
    for i in place:
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    body, kind = [], colour(index)
    for run in runs:
        banded = [i for i in run if all(map(finite, bounds(series, i)))]
        if len(banded) > 1:
            upper = [f"{place[i][0]:.1f},{y_axis(bounds(series, i)[1]):.1f}" for i in banded]
            lower = [f"{place[i][0]:.1f},{y_axis(bounds(series, i)[0]):.1f}" for i in reversed(banded)]
            body.append(f'<polygon class="band {kind}" points="{" ".join(upper + lower)}"/>')
        if len(run) > 1:
            path = "L".join(f"{place[i][0]:.1f} {place[i][1]:.1f}" for i in run)
            body.append(f'<path class="curve {kind}" d="M{path}"/>')
    few = len(place) <= MOST_MARKERS
    for i, (x, y) in place.items():
        tip = tip_of(figure, series, i)
        if few or len(runs) == len(place):
            body.append(marker(index, x, y, 3 if len(place) <= 24 else 2.2, tip))
        elif len(place) <= 400:
            body.append(
                f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(clean(tip))}</title></circle>'
            )
    return body


def _scatter(figure: Figure, series: Series, index: int, place, y_axis, labels: Labels) -> list[str]:
    body = []
    for i, (x, y) in place.items():
        body += _whisker(series, i, x, y_axis)
        body.append(marker(index, x, y, 4, tip_of(figure, series, i)))
        if series.labels and i < len(series.labels) and len(place) <= 30:
            body += labels.beside(x, y, series.labels[i])
    return body


def _whisker(series: Series, i: int, x: float, y_axis) -> list[str]:
    low, high = bounds(series, i)
    if not (finite(low) and finite(high)):
        return []
    ends = y_axis(low), y_axis(high)
    return [line(x, ends[0], x, ends[1], "whisker"), *(line(x - 3, y, x + 3, y, "whisker") for y in ends)]


def _columns(figure: Figure, series: Series, index: int, place, y_axis, slot: float) -> list[str]:
    """Upright bars over a numeric x."""
    group = max(1, len(figure.series))
    wide = max(0.8, min(28.0, slot * 0.8 / group))
    base = y_axis(0.0) if not figure.log_y else y_axis.start
    body = []
    for i, (x, y) in place.items():
        x = x + (index - (group - 1) / 2) * wide
        title = f"<title>{escape(clean(tip_of(figure, series, i)))}</title>"
        size = f'y="{min(y, base):.1f}" width="{wide:.1f}" height="{max(0.6, abs(base - y)):.1f}"'
        body.append(f'<rect class="bar {colour(index)}" x="{x - wide / 2:.1f}" {size}>{title}</rect>')
        body += _whisker(series, i, x, y_axis)
    return body
