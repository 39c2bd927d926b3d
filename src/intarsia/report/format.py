"""Numbers and text as a reader sees them, the same in the terminal and on the page."""

from __future__ import annotations

import math
from typing import Any

from intarsia.report.finding import Cell, Column

MISSING = "–"
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
# Control characters cannot stand in HTML or a terminal; their pictures (U+2400...) can. A lone surrogate cannot be
# encoded at all.
_CLEAN = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    **dict.fromkeys([*range(0x7F, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD),
    # A right-to-left override in a token would turn the rest of the line round.
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}


def clean(text: Any) -> str:
    """`text` as a string without characters that a page or terminal cannot hold."""
    return str(text).translate(_CLEAN)


def missing(value: Any) -> bool:
    """Whether a cell or point has nothing to show: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def finite(value: Any) -> bool:
    """Whether a value can be placed on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def size(value: float) -> str:
    """A size in bytes, in decimal units with three figures: `269 MB`."""
    unit = 0
    while abs(value) >= 999.5 and unit < len(_SIZES) - 1:
        value /= 1000
        unit += 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {_SIZES[unit]}"


def number(value: Any, spec: str = "") -> str:
    """One value by a format spec; without one, integers with thousands marks and floats with four figures. A spec that
    does not fit the value falls back to that."""
    if missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return clean(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if spec == "bytes":
        text = size(value)
    else:
        try:
            text = format(int(value) if spec.endswith("d") and float(value).is_integer() else value, spec or "")
            if not spec:
                text = f"{value:,d}" if isinstance(value, int) else _plain(value)
        except (ValueError, OverflowError):
            text = _plain(value)
    return text.replace("-", "−") if text.startswith("-") else text


def _plain(value: float) -> str:
    """Four figures without needless zeros or an exponent for everyday sizes."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = 4 - (math.floor(math.log10(abs(value))) + 1) if value else 0
        text = f"{value:,.{max(0, digits)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3g}"


def interval(value: Any, low: Any, high: Any, spec: str = "") -> str:
    """The interval of a value in few characters: `±0.021` when it is symmetric, else `0.79–0.84`; empty if unknown."""
    if not (finite(low) and finite(high)):
        return ""
    if finite(value):
        below, above = value - low, high - value
        if min(below, above) >= 0 and abs(below - above) <= 0.15 * max(below, above):
            return "±" + number((below + above) / 2, spec)
    joint = "–" if low >= 0 else " to "
    return f"{number(low, spec)}{joint}{number(high, spec)}"


def parts(cell: Cell | tuple[float, float, float], column: Column) -> tuple[str, str]:
    """A cell as (value, interval) texts; the interval is empty where there is none."""
    if isinstance(cell, tuple | list):
        value, low, high = cell
        return number(value, column.format), interval(value, low, high, column.format)
    return number(cell, column.format), ""


def value_of(cell: Cell | tuple[float, float, float]) -> Cell:
    """A cell's value without its interval."""
    return cell[0] if isinstance(cell, tuple | list) else cell


def heading(column: Column) -> str:
    """A column's name with its unit, as one text."""
    return clean(f"{column.name} ({column.unit})" if column.unit else column.name)


def show_token(token: str) -> str:
    """A token in print: line ends as ↵, tabs as ⇥, an empty one as ∅."""
    return clean(token.replace("\r\n", "\n").replace("\n", "↵").replace("\t", "⇥")) or "∅"
