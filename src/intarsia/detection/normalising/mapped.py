"""A text while it is changed: it remembers where in the original each of its characters comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Edit = tuple[int, int, str]
"""What stands from a first to before a second offset, and what is to stand there instead."""


@dataclass(frozen=True)
class Mapped:
    """- text: as it is now. start, end: [character] the span of the original that each character came of."""

    text: str
    start: np.ndarray
    end: np.ndarray

    @staticmethod
    def of(text: str) -> Mapped:
        at = np.arange(len(text) + 1)
        return Mapped(text, at[:-1], at[1:])

    def edited(self, edits: Iterable[Edit]) -> Mapped:
        """With edits made, which stand in order and apart from each other.

        Every character of a replacement comes of all that it replaces."""
        parts, froms, lengths, kept = [], [], [], []
        at = 0
        for first, stop, new in [*edits, (len(self.text), len(self.text), "")]:
            if at < first:
                parts.append(self.text[at:first])
                froms.append((at, at))
                lengths.append(first - at)
                kept.append(True)
            if new:
                parts.append(new)
                froms.append((first, stop - 1))
                lengths.append(len(new))
                kept.append(False)
            at = stop
        if len(parts) == 1 and kept == [True] and lengths == [len(self.text)]:
            return self
        if not parts:
            return Mapped("", self.start[:0], self.end[:0])
        runs = np.array(lengths)
        within = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
        within *= np.repeat(kept, runs)
        first, last = (np.repeat(side, runs) + within for side in np.array(froms).T)
        return Mapped("".join(parts), self.start[first], self.end[last])

    def respelled(self, text: str) -> Mapped:
        """With other characters in the same places."""
        assert len(text) == len(self.text)
        return Mapped(text, self.start, self.end)

    def span(self, first: int, stop: int) -> tuple[int, int]:
        """Where a part that is not empty stands in the original."""
        return int(self.start[first]), int(self.end[stop - 1])
