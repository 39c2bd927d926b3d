"""Words, and views: texts that are cut to a length, so that a text is compared with people's texts that are about as
long. What is shorter than a view stays whole."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

VIEWS = (20, 35, 50, 65, 80, 100, 125, 160, 200, 250, 320, 400, 500, 700)
"""Lengths in words."""
SHORTEST = 50
"""Words under which no verdict is given."""
LEAST = 10
"""Words under which a text is neither learned from nor in a bank."""
CJK = "぀-ヿ㐀-䶿一-鿿豈-﫿"
"""Signs that are written without blanks between words: each counts as one."""

WORD = re.compile(rf"[{CJK}]|[^\s{CJK}]+")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where words stand, in characters."""
    return [found.span() for found in WORD.finditer(text)]


def word_ends(text: str, most: int = VIEWS[-1]) -> list[int]:
    """Where the first `most` words end, in characters."""
    out = []
    for word in WORD.finditer(text):
        out.append(word.end())
        if len(out) == most:
            break
    return out


def length_of(text: str) -> int:
    """How many words."""
    return sum(1 for _ in WORD.finditer(text))


def view_for(words: int, views: Sequence[int] = VIEWS) -> int:
    """The shortest view that shows so many words whole; the longest view where none does."""
    return views[min(bisect_left(views, words), len(views) - 1)]


def cut(text: str, words: int) -> str:
    """Its first so many words; all of it where it has fewer."""
    ends = word_ends(text, words)
    return text[: ends[-1]] if ends else ""
