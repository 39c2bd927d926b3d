"""Timelines: what was done when, one line a step; on the page each line opens to what was said."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from intarsia.report.drawing import SHAPES
from intarsia.report.finding import Timeline
from intarsia.report.format import MISSING, clean, number

if TYPE_CHECKING:
    from rich.console import RenderableType

LEAST = 0.4  # percent of the width that anything is drawn at
MOST_LINES = 200  # in a terminal


def length(block: Timeline) -> float:
    """Seconds from the first beginning to the last end."""
    first = min((bar.start for bar in block.bars), default=0.0)
    return max((bar.start + (bar.seconds or 0.0) for bar in block.bars), default=0.0) - first


def kinds(block: Timeline) -> dict[str, int]:
    """A colour for each kind, in order of appearance."""
    return {kind: i % SHAPES for i, kind in enumerate(dict.fromkeys(bar.kind for bar in block.bars))}


def seconds(value: float | None) -> str:
    """A length of time in few characters: `3.2 ms`, `1.25 s`, `4 min 5 s`."""
    if value is None:
        return MISSING
    if value < 0.9995:
        return f"{number(value * 1000, '.3g')} ms"
    if value < 120:
        return f"{number(value, '.3g')} s"
    return f"{int(value // 60)} min {round(value % 60)} s"


def draw_timeline(block: Timeline) -> str:
    """The lines as HTML; complete without scripts."""
    if not block.bars:
        return '<p class="empty">Nothing was done.</p>'
    first, whole, colour = min(bar.start for bar in block.bars), length(block) or 1.0, kinds(block)
    keys = "".join(f'<li><i class="b{number}"></i>{escape(clean(kind))}</li>' for kind, number in colour.items())
    lines = []
    for bar in block.bars:
        left = 100 * (bar.start - first) / whole
        width = max(LEAST, 100 * (bar.seconds or 0.0) / whole)
        failed = " bad" if bar.failed else ""
        said = f'<span class="state{failed}">{escape(clean(bar.note))}</span>' if bar.note else ""
        line = (
            f'<span class="what" style="--depth:{bar.depth}">{escape(clean(bar.name))}{said}</span>'
            f'<span class="track"><i class="b{colour[bar.kind]}" style="left:{min(left, 100 - LEAST):.3f}%;'
            f'width:{min(width, 100 - left):.3f}%"></i></span><span class="time">{seconds(bar.seconds)}</span>'
        )
        if not bar.details:
            lines.append(f'<li><div class="line">{line}</div></li>')
            continue
        inside = "".join(
            f"<h4>{escape(clean(title))}</h4><pre>{escape(clean(words))}</pre>" for title, words in bar.details
        )
        lines.append(f'<li><details><summary class="line">{line}</summary>{inside}</details></li>')
    return f'<ul class="keys">{keys}</ul><ol class="steps">{"".join(lines)}</ol>'


def timeline(block: Timeline, width: int) -> Iterator[RenderableType]:
    """The lines in a terminal."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    if not block.bars:
        yield Text("nothing was done", style="dim")
        return
    first, whole = min(bar.start for bar in block.bars), length(block) or 1.0
    shown = block.bars[:MOST_LINES]
    names = ["  " * bar.depth + clean(bar.name).replace("\n", " ") for bar in shown]
    label = min(max(map(cell_len, names)), max(16, width * 2 // 5))
    room = max(8, width - label - 14)
    for bar, name in zip(shown, names, strict=True):
        begin = min(room - 1, int(room * (bar.start - first) / whole))
        wide = max(1, min(room - begin, round(room * (bar.seconds or 0.0) / whole)))
        drawn = " " * begin + "━" * wide
        style = "red" if bar.failed else "cyan"
        yield Text.assemble(
            set_cell_size(name, label), " ", (f"{drawn:<{room}}", style), f" {seconds(bar.seconds):>11}", no_wrap=True
        )
        if bar.note:
            yield Text("  " * (bar.depth + 1) + clean(bar.note), style="red" if bar.failed else "dim")
    if len(block.bars) > MOST_LINES:
        yield Text(f"… and {len(block.bars) - MOST_LINES} more", style="dim")
