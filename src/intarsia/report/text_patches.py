"""Patch maps in a terminal: a block of cells a panel, a letter and a colour for each group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from intarsia.report.finding import PatchMap, PatchPanel
from intarsia.report.format import clean
from intarsia.report.patches import GONE, colours, describe, letters

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

SINGLE, LEFT_OUT = "·", "x"
_COLOURS = ("#0b5fa5", "#c2560c", "#0a8062", "#8f3f97", "#8a6d00", "#55606c")
MOST_LINES = 40


def patches(block: PatchMap, console: Console) -> Iterator[RenderableType]:
    """The panels side by side, as many as the width holds, each under its name."""
    from rich.text import Text

    if not block.panels or not block.rows or not block.columns:
        yield Text("no patches", style="dim")
        return
    cell = 2 if 2 * block.columns <= console.width else 1
    if block.columns > console.width or block.rows > MOST_LINES:
        for panel in block.panels:  # too fine to be drawn
            yield Text(clean(f"{panel.name}: {describe(panel)}"))
        return
    width = max(block.columns * cell, 18)
    across = max(1, (console.width + 3) // (width + 3))
    for start in range(0, len(block.panels), across):
        line = block.panels[start : start + across]
        if start:
            yield Text()
        heads = [_wrapped(clean(panel.name), width) for panel in line]
        for at in range(max(map(len, heads), default=0)):
            yield _joined([Text(head[at] if at < len(head) else "", style="dim") for head in heads], width)
        drawn = [_rows(panel, block, cell) for panel in line]
        for at in range(block.rows):
            yield _joined([rows[at] for rows in drawn], width)
    yield Text(
        f"letters: patches that are one row now; {SINGLE}: a row of its own"
        + (f"; {LEFT_OUT}: left out" if any(GONE in panel.groups for panel in block.panels) else ""),
        style="dim",
    )


def _rows(panel: PatchPanel, block: PatchMap, cell: int) -> list[Text]:
    from rich.text import Text

    tints, names = colours(panel, block.rows, block.columns), letters(panel)
    rows = []
    for row in range(block.rows):
        text = Text()
        for group in panel.groups[row * block.columns : (row + 1) * block.columns]:
            if group in names:
                text.append(names[group] + " " * (cell - 1), style=f"bold white on {_COLOURS[tints[group]]}")
            else:
                text.append((LEFT_OUT if group == GONE else SINGLE) + " " * (cell - 1), style="dim")
        rows.append(text)
    return rows


def _joined(parts: list[Text], width: int) -> Text:
    from rich.text import Text

    line = Text(no_wrap=True)
    for i, part in enumerate(parts):
        line.append_text(part)
        if i + 1 < len(parts):
            line.append(" " * (width - len(part) + 3))
    return line


def _wrapped(words: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(words, width) or [""]
