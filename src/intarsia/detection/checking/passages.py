"""Passages: a document as windows of equal length that overlap by half."""

from __future__ import annotations

from dataclasses import dataclass

from intarsia.detection.voices.cuts import word_spans

WORDS = 125
STRIDE = 62


@dataclass(frozen=True)
class Window:
    """- start, end: in characters. first, last: its words, the last one not included."""

    start: int
    end: int
    first: int
    last: int


def windows(text: str, words: int = WORDS, stride: int = STRIDE, most: int | None = None) -> list[Window]:
    """Windows that together hold every word; the last one ends with the text. A text of fewer words is one window.

    - most: take so many, evenly spread, where there are more."""
    spans = word_spans(text)
    if not spans:
        return []
    starts = list(range(0, max(1, len(spans) - words + 1), stride))
    if starts[-1] + words < len(spans):
        starts.append(len(spans) - words)
    out = [Window(spans[a][0], spans[min(a + words, len(spans)) - 1][1], a, min(a + words, len(spans))) for a in starts]
    if most is not None and len(out) > most:
        out = [out[round(i * (len(out) - 1) / max(1, most - 1))] for i in range(most)]
    return out


def share_of_words(flagged: list[Window], every: list[Window]) -> float:
    """Share of the words in `every` window that stand in a flagged one."""
    seen = {word for window in every for word in range(window.first, window.last)}
    marked = {word for window in flagged for word in range(window.first, window.last)}
    return len(marked) / len(seen) if seen else 0.0
