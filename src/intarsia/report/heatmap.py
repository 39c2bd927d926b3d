"""Heatmaps as SVG, and the one rule by which a value becomes a colour, shared with token maps."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from intarsia.report.drawing import CHARACTER, frame, line, shorten, text
from intarsia.report.finding import Figure
from intarsia.report.format import MISSING, clean, finite, number

TINY = 1e-290


class Shade:
    """From a value to a strength of colour between 0 and 1.

    Colours are one hue laid over the page in that strength (two hues, from zero, on a diverging scale): that reads the
    same on light and dark paper and to colour-blind eyes, since it is lightness that carries the value."""

    def __init__(self, values: Iterable[object], scale: str, maximum: float | None = None):
        known = [float(value) for value in values if finite(value)]
        self.diverging = scale == "diverging"
        if self.diverging:
            self.high = maximum if finite(maximum) and maximum > 0 else max(map(abs, known), default=1.0)
            self.high = self.high if self.high > TINY else 1.0
            self.low = -self.high
        else:
            self.high = maximum if finite(maximum) else max(known, default=1.0)
            self.low = min(known, default=0.0)
            if (
                0 < self.low < self.high / 2 or maximum is not None
            ):  # start at zero unless that would flatten everything
                self.low = min(0.0, self.low)
            if self.high - self.low < TINY:  # one value only
                value = self.high if abs(self.high) > TINY else 1.0
                self.low, self.high = min(0.0, value), max(0.0, value)

    def strength(self, value: object) -> float:
        """How strong, from 0 to 1; 0 for what is missing."""
        if not finite(value):
            return 0.0
        if self.diverging:
            return min(1.0, abs(float(value) / self.high))
        share = (float(value) / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return min(1.0, max(0.0, share))

    def kind(self, value: object) -> str:
        """CSS classes: the hue, and whether the colour is so strong that text on it must turn."""
        if not finite(value):
            return "none"
        strength = self.strength(value)
        hue = "seq" if not self.diverging else ("pos" if value > 0 else "neg")
        return hue + (" hi" if strength > 0.75 else " mid" if strength > 0.5 else "")

    def steps(self, spec: str = "") -> list[tuple[str, float, str]]:
        """A legend: (classes, strength, text at this step or '')."""
        shares = (-1, -0.5, 0, 0.5, 1) if self.diverging else (0, 0.25, 0.5, 0.75, 1)
        rows = []
        for index, share in enumerate(shares):
            value = share * self.high if self.diverging else self.low * (1 - share) + self.high * share
            words = number(value, spec) if index in (0, 2, 4) else ""
            rows.append((self.kind(value), round(self.strength(value), 2), words))
        return rows


def shade_of(figure: Figure) -> Shade:
    """The colour scale of a heatmap."""
    return Shade((value for row in figure.matrix or [] for value in row), figure.scale)


def draw_heatmap(figure: Figure, width: int) -> str:
    """Rows from top to bottom, as in `matrix`; a missing value is an empty cell."""
    matrix = figure.matrix or []
    across, down = max(map(len, matrix), default=0), len(matrix)
    if not across:
        return frame(figure, width, 60, [text(width / 2, 34, "no values", "middle", "label")])
    shade = shade_of(figure)
    room = min(0.34 * width, 150)
    left = 8 + min(room, CHARACTER * max((len(clean(name)) for name in figure.row_names), default=0))
    top = 20.0 if figure.y else 4.0
    least = 52 if figure.texts else 4
    natural = left + 4 + least * across
    total = max(float(width), natural)
    cell = (total - left - 4) / across
    tall = 22.0 if figure.texts else min(26.0, max(9.0, min(cell, 420 / down)))
    longest = max((len(clean(name)) for name in figure.column_names), default=0) * CHARACTER
    turned = bool(figure.column_names) and longest > cell - 4
    foot = (min(96, longest * 0.72 + 14) if turned else 18) if figure.column_names else 4
    bottom = top + tall * down
    height = bottom + foot + (18 if figure.x else 0)
    gap = 1.0 if cell > 8 and tall > 8 else 0.0
    body = [text(2, 12, shorten(figure.y, total), kind="label")] if figure.y else []
    skip_rows = max(1, round(13 / tall + 0.49))
    for r, row in enumerate(matrix):
        y = top + r * tall
        if r < len(figure.row_names) and r % skip_rows == 0:
            body.append(text(left - 6, y + tall / 2 + 4, shorten(figure.row_names[r], left - 8), "end"))
        for c, value in enumerate(row):
            x = left + c * cell
            box = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.5, cell - gap):.1f}" height="{max(0.5, tall - gap):.1f}"'
            fill = f' fill-opacity="{0.04 + 0.96 * shade.strength(value):.2f}"' if finite(value) else ""
            tip = escape(clean(_tip(figure, r, c, value)))
            body.append(f'<rect class="cell {shade.kind(value)}" {box}{fill}><title>{tip}</title></rect>')
            words = _word(figure, r, c)
            if words:
                kind = "inside " + shade.kind(value)
                body.append(text(x + cell / 2, y + tall / 2 + 4, shorten(words, cell - 4), "middle", kind))
            elif not finite(value) and cell > 10:
                body.append(text(x + cell / 2, y + tall / 2 + 4, MISSING, "middle"))
    every = max(1, -(-13 // int(cell) if cell >= 1 else 13)) if turned else 1
    for c, name in enumerate(figure.column_names[:across]):
        if c % every:
            continue
        x = left + (c + 0.5) * cell
        if turned:
            body.append(text(x + 4, bottom + 10, shorten(name, 120), "end", "tick", -45))
        else:
            body.append(text(x, bottom + 14, name, "middle"))
    body.append(line(left, bottom, total - 4, bottom, "axis"))
    if figure.x:
        body.append(text((left + total) / 2, height - 4, shorten(figure.x, total - left), "middle", "label"))
    return frame(figure, total, height, body, natural if natural > width else None)


def _word(figure: Figure, r: int, c: int) -> str:
    if figure.texts and r < len(figure.texts) and c < len(figure.texts[r]):
        text = clean(figure.texts[r][c])
        return text.strip() or ("␣" if text else "")  # a token of white space is shown; no text is none
    return ""


def _tip(figure: Figure, r: int, c: int, value: object) -> str:
    row = figure.row_names[r] if r < len(figure.row_names) else f"{figure.y or 'row'} {r}"
    column = figure.column_names[c] if c < len(figure.column_names) else f"{figure.x or 'column'} {c}"
    word = _word(figure, r, c)
    return f"{row}, {column}: {word + ', ' if word else ''}{number(value, figure.format)}"
