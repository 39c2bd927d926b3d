"""Axes: from values to places on a drawing, and the round numbers that are written beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from intarsia.report.format import clean, finite, number

TINY = 1e-300


class Axis:
    """A numeric axis from `low` to `high`, drawn from place `start` to `end` (which may run backwards)."""

    def __init__(self, low: float, high: float, start: float, end: float, spec: str = "", whole: bool = False):
        self.low, self.high, self.start, self.end, self.spec = low, high, start, end, spec
        self.whole = whole  # values between integers mean nothing: a layer, a number of bits

    def __call__(self, value: float) -> float:
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)  # halves: the span itself may overflow
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most about `most` round values with their texts."""
        step = _round_step((self.high / 2 - self.low / 2) / max(1, most) * 2, self.whole)
        first = math.ceil(self.low / step - 1e-9)
        values = [(first + i) * step for i in range(4 * most + 4)]
        values = [value for value in values if self.low <= value <= self.high * (1 + 1e-12) + step * 1e-9]
        return [(value, self.text(value, step)) for value in values]

    def text(self, value: float, step: float) -> str:
        if abs(value) < step * 1e-6:
            value = 0.0
        if self.spec.endswith("%"):
            return number(value, f".{_digits(step * 100)}%")
        if self.spec == "bytes":
            return number(value, "bytes")
        if step >= 1e-5 and max(abs(self.low), abs(self.high)) < 1e6:
            return number(float(value), f",.{_digits(step)}f")
        return number(value, ".3g")


class LogAxis(Axis):
    """A logarithmic axis; values at or below zero are placed at its low end."""

    def __call__(self, value: float) -> float:
        low, high = math.log10(self.low), math.log10(self.high)
        share = (math.log10(max(value, TINY)) - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = max(1, math.ceil((high - low) / max(1, most)))
        digits = (1, 2, 5) if high - low <= 2 else (1,)
        values = [digit * 10.0**power for power in range(low, high + 1, every) for digit in digits]
        inside = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
        if len(inside) < 3 and self.high < 100 * self.low:  # within a decade the round values are those of a plain axis
            return [(value, words) for value, words in super().ticks(most) if value > 0]
        if self.spec == "bytes":
            return [(value, number(value, "bytes")) for value in inside]
        return [(value, number(value) if 1e-4 <= value < 1e6 else f"{value:.0e}") for value in inside]


class Categories:
    """An axis of names, each in the middle of a slot of its own."""

    def __init__(self, names: Sequence[str], start: float, end: float):
        self.names, self.start = list(names), start
        self.places = {name: index for index, name in enumerate(self.names)}
        self.slot = (end - start) / max(1, len(self.names))

    def __call__(self, value: str) -> float:
        return self.start + (self.places[value] + 0.5) * self.slot

    def ticks(self, most: int) -> list[tuple[str, str]]:
        """Every name, or every second, third... when only `most` find room."""
        every = max(1, math.ceil(len(self.names) / max(1, most)))
        return [(name, clean(name)) for name in self.names[::every]]


def span(values: Iterable[object], *, log: bool = False, zero: bool = False, pad: float = 0.04) -> tuple[float, float]:
    """The range that holds all finite values with some air; never empty. `zero` takes in the zero line."""
    known = [float(value) for value in values if finite(value) and not (log and value <= 0)]
    if not known:
        return (0.1, 10.0) if log else (0.0, 1.0)
    low, high = max(-1e300, min(known)), min(1e300, max(known))
    if log:
        low, high = (min(1e290, max(1e-290, end)) for end in (low, high))
        return (low / 1.25, high * 1.25) if high > low * 1.5 else (low / 2, high * 2)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    largest = max(abs(low), abs(high))
    if high - low <= max(largest * 1e-9, 1e-280):
        room = largest * 0.5 if largest > 1e-270 else 1.0
        return low - room, high + room
    air = (high / 2 - low / 2) * 2 * pad
    return low - (air if not (zero and low == 0) else 0), high + (air if not (zero and high == 0) else 0)


def _round_step(rough: float, whole: bool = False) -> float:
    rough = max(1.0, rough) if whole else rough
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-290)))
    for factor in (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10):
        if factor * power >= rough * 0.999999:
            return factor * power
    return 10 * power


def _digits(step: float) -> int:
    """The decimals that tell the multiples of `step` apart: none for 5, one for 2.5, two for 0.25."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return digits if abs(step * 10**digits - round(step * 10**digits)) < 1e-6 else digits + 1
