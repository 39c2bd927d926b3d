"""Findings as terminal text: tables, small charts made of characters, token maps. Reads without colour too."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from intarsia.report import text_charts, text_patches, timelines
from intarsia.report.finding import Block, Finding, PatchMap, Table, Timeline, TokenMap
from intarsia.report.format import MISSING, clean, finite, heading, number, parts, show_token, value_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

MOST_ROWS = text_charts.MOST_ROWS


def to_text(finding: Finding, width: int = 80) -> str:
    """The finding as plain text without colour, at most `width` cells wide."""
    from rich.console import Console

    stream = io.StringIO()
    print_finding(finding, Console(file=stream, width=width, color_system=None, force_terminal=False, highlight=False))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")


def print_finding(finding: Finding, console: Console | None = None) -> None:
    """Print a finding to a rich console (default: standard output, as wide as the terminal)."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    title = finding.title or finding.technique or type(finding).__name__
    console.print(Text(clean(title), style="bold"))
    if finding.summary:
        console.print(Text(clean(finding.summary)))
    for block in finding.blocks():
        console.print()
        for piece in _draw(block, console):
            console.print(piece, highlight=False)


def _draw(block: Block, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    if block.title:
        yield Text(clean(block.title), style="bold cyan")
    if isinstance(block, Table):
        yield from _table(block, console.width)
    elif isinstance(block, TokenMap):
        yield from _tokens(block, console)
    elif isinstance(block, PatchMap):
        yield from text_patches.patches(block, console)
    elif isinstance(block, Timeline):
        yield from timelines.timeline(block, console.width)
    elif block.kind == "heatmap":
        yield from text_charts.heatmap(block, console.width)
    elif block.kind == "bar":
        yield from text_charts.bars(block, console.width)
    elif block.kind == "line":
        yield from text_charts.lines(block, console.width)
    else:
        yield from text_charts.scatter(block, console.width)
    if block.note:
        yield Text(clean(block.note), style="dim")


def _table(table: Table, width: int) -> Iterator[RenderableType]:
    """A table; columns that do not fit stand in further tables below, each with the first column again."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table as Grid
    from rich.text import Text

    shown = table.rows[:MOST_ROWS]
    texts = [
        [" ".join(filter(None, parts(cell, column))) for cell, column in zip(row, table.columns, strict=False)]
        for row in shown
    ]
    heads = [heading(column) for column in table.columns]
    if not texts or not heads:
        yield Text("no rows", style="dim")
        return
    most = max(12, width * 2 // 5)
    needs = [
        min(
            most,
            max([cell_len(head), *(cell_len(line) for row in texts if i < len(row) for line in row[i].split("\n"))]),
        )
        for i, head in enumerate(heads)
    ]
    for group in _groups(needs, width):
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        for i in group:
            number_like = any(finite(value_of(row[i])) for row in shown if i < len(row))
            grid.add_column(Text(heads[i]), justify="right" if number_like else "left", overflow="fold", max_width=most)
        for row in texts:
            grid.add_row(*(Text(row[i]) if i < len(row) else Text(MISSING) for i in group))
        yield grid
    if len(table.rows) > MOST_ROWS:
        yield Text(f"... {len(table.rows) - MOST_ROWS:,} more rows", style="dim")


def _groups(needs: Sequence[int], width: int) -> list[list[int]]:
    """Columns 1... in groups that fit beside column 0."""
    groups, used = [[0]], needs[0]
    for i, need in enumerate(needs[1:], start=1):
        if used + need + 2 > width and len(groups[-1]) > 1:
            groups.append([0])
            used = needs[0]
        groups[-1].append(i)
        used += need + 2
    return groups


def _tokens(block: TokenMap, console: Console) -> Iterator[RenderableType]:
    """The text with strong tokens coloured; without colour they stand in brackets. Then the strongest by name."""
    from rich.text import Text

    from intarsia.report.heatmap import Shade

    values = [*block.values, *[None] * (len(block.tokens) - len(block.values))]
    shade = Shade(values, block.scale, block.maximum)
    if not block.tokens:
        yield Text("no tokens", style="dim")
        return
    flow = Text(overflow="fold")
    for token, value in zip(block.tokens, values, strict=False):
        strength = shade.strength(value)
        words = show_token(token) + "\n" * token.count("\n")
        if console.color_system is None:
            flow.append(f"[{words}]" if strength > 0.5 else words)
        else:
            flow.append(words, style=_colour(strength, shade.diverging and finite(value) and value < 0))
    yield flow
    known = [i for i, value in enumerate(values[: len(block.tokens)]) if finite(value)]
    top = sorted(known, key=lambda i: (-shade.strength(values[i]), i))[:5]
    words = ", ".join(
        f"{_short(show_token(block.tokens[i]).strip() or '␣')!r} {number(values[i], block.format)}" for i in top
    )
    meaning = f"strongest ({clean(block.meaning)})" if block.meaning else "strongest"
    yield Text(f"{meaning}: {words or 'none'}", style="dim")


def _short(words: str, most: int = 40) -> str:
    """A token may be a whole passage: here its beginning names it."""
    return words if len(words) <= most else words[: most - 1] + "…"


def _colour(strength: float, negative: bool) -> str:
    """A rich style: black or white on the shade's colour."""
    if strength < 0.06:
        return ""
    base = (60, 130, 230) if negative else (235, 120, 30)
    mixed = [round(40 + (part - 40) * (0.25 + 0.75 * strength)) for part in base]
    return f"{'black' if strength > 0.5 else 'white'} on #{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"
