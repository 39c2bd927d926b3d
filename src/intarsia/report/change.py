"""How a figure moved against a reference: by how much, and whether that is better or worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from intarsia.report.finding import Cell, Column
from intarsia.report.format import finite, number, value_of

Verdict = Literal["better", "worse", "same", "unclear", ""]


@dataclass(frozen=True)
class Change:
    """`text` is the signed change, `arrow` its direction, `verdict` what it means. `unclear` says that the two
    intervals overlap, so that the change alone proves nothing."""

    text: str
    arrow: str
    verdict: Verdict
    raw: float


def change(
    cell: Cell | tuple[float, float, float],
    base: Cell | tuple[float, float, float],
    column: Column,
    paired: tuple[float, float, float] | None = None,
) -> Change | None:
    """The change from `base` to `cell`, or None where there is nothing to compare.

    Shares between 0 and 1 that should rise (accuracy, F1) and percentages change by a difference, since "+10%" of a
    share misleads; all other figures by a ratio. Beyond threefold the ratio itself reads better than a percentage.
    - paired: the change with its interval from a paired comparison; it decides the verdict where there is one."""
    new, old = value_of(cell), value_of(base)
    if not (finite(new) and finite(old)):
        return None
    moved = new - old
    arrow = "▲" if moved > 0 else "▼" if moved < 0 else "="
    verdict: Verdict = ""
    if moved == 0:
        return Change("no change", "=", "same", 0.0)
    if column.better:
        verdict = "better" if (moved > 0) == (column.better == "higher") else "worse"
        if paired is not None:
            verdict = "unclear" if paired[1] <= 0 <= paired[2] else verdict
        elif _overlap(cell, base):
            verdict = "unclear"
    share = column.format.endswith("%") or (column.better == "higher" and 0 <= new <= 1 and 0 <= old <= 1)
    if share or old == 0 or (new < 0) != (old < 0):
        if column.format.endswith("%"):
            text = f"{abs(moved) * 100:.1f} points"
        else:
            text = number(abs(moved), column.format)
        text = ("+" if moved > 0 else "−") + text
        if paired is not None:
            low, high = (end * 100 if column.format.endswith("%") else end for end in paired[1:])
            text += f" ({low:+.1f} to {high:+.1f})".replace("-", "−") if column.format.endswith("%") else ""
    else:
        ratio = new / old
        if ratio >= 3:
            text = f"{ratio:.3g}×" if ratio < 1000 else f"{ratio:,.0f}×"
        else:
            text = f"{(ratio - 1) * 100:+.1f}%".replace("-", "−")
    return Change(text, arrow, verdict, moved)


def _overlap(cell: Cell | tuple[float, float, float], base: Cell | tuple[float, float, float]) -> bool:
    both = isinstance(cell, tuple | list) and isinstance(base, tuple | list)
    if not both or not all(map(finite, [*cell, *base])):
        return False
    return cell[1] <= base[2] and base[1] <= cell[2]
