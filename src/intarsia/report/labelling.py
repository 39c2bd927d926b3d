"""Words beside marks, none over another: each moves up or down until there is room, or is left to its mark's tip."""

from __future__ import annotations

from dataclasses import dataclass, field

from intarsia.report.drawing import CHARACTER, text
from intarsia.report.format import clean

LINE = 13.0  # pixels from one line of words to the next
STEPS = (0, -1, 1, -2, 2, -3, 3)


@dataclass
class Labels:
    """The words of one drawing. left, right, top, bottom: where they must stay, in pixels."""

    left: float
    right: float
    top: float
    bottom: float
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def beside(self, x: float, y: float, words: str) -> list[str]:
        """Words right of a mark at (x, y), or left of it where they do not fit; nothing where no line is free."""
        turn = x + 8 + self._width(words) > self.right
        return self.at(x - 8 if turn else x + 8, y + 4, words, "end" if turn else "start")

    def at(self, x: float, y: float, words: str, anchor: str) -> list[str]:
        """Words that begin or end (anchor: start, end) at x, on the free line nearest to y."""
        start = x if anchor == "start" else x - self._width(words)
        end = start + self._width(words)
        for step in STEPS:
            line = y + step * LINE
            free = all(abs(line - other) >= LINE or end <= a or start >= b for a, b, other in self.taken)
            if free and (step == 0 or self.top + LINE - 4 <= line <= self.bottom):
                self.taken.append((start, end, line))
                return [text(x, line, words, anchor, "note")]
        return []

    def _width(self, words: str) -> float:
        return CHARACTER * len(clean(words))
