"""NFKC with the way back: one character for what is written with several code points, and the plain one for variants.

Unicode Standard Annex #15. A text is normalised in pieces that no composition crosses, so that each piece's place in
the original is known."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from intarsia.detection.normalising.mapped import Edit, Mapped

MOST_MARKS = 16
"""The most marks over one letter: no script has so many, and to sort a long heap of them takes quadratic time."""

_CODES = re.compile("[\x80-\x9f]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_QUOTES = str.maketrans(
    {**dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4\u275b\u275c", "'"),
     **dict.fromkeys("\u201c\u201d\u201e\u201f\u275d\u275e", '"')}
)  # fmt: skip


def recoded(text: Mapped) -> Mapped:
    """With the signs that were meant where a file in Windows-1252 was read as Latin-1: the control characters that are
    there instead (U+0092 for a curly apostrophe) occur in no text."""
    if not _CODES.search(text.text):
        return text
    return text.respelled(_CODES.sub(_meant, text.text))


def _meant(code: re.Match[str]) -> str:
    return code[0].encode("latin-1").decode("cp1252", "ignore") or code[0]  # five of them mean nothing there either


def straight_quotes(text: Mapped) -> Mapped:
    """With straight quotes for the curly ones, and for an acute accent that stands alone."""
    return text.respelled(text.text.translate(_QUOTES))


def composed(text: Mapped) -> Mapped:
    """In NFKC, with no more than `MOST_MARKS` marks over one letter."""
    if text.text.isascii():
        return text
    return text.edited(_edits(text.text))


def _edits(text: str) -> list[Edit]:
    edits = []
    for run in _BEYOND_ASCII.finditer(text):
        at, stop = run.span()
        if at and continues(text[at]):
            at -= 1  # an ASCII letter with marks
        while at < stop:
            # A piece: a character and all that may be composed with it.
            end, marks, taken = at + 1, int(_is_mark(text[at])), [text[at]]
            while end < stop and continues(text[end]):
                marks = marks + 1 if _is_mark(text[end]) else 0
                if marks <= 2 * MOST_MARKS:
                    taken.append(text[end])
                end += 1
            new = _alone(text[at]) if end == at + 1 else _thinned(unicodedata.normalize("NFKC", "".join(taken)))
            if new != text[at:end]:
                edits.append((at, end, new))
            at = end
    return edits


def _thinned(text: str) -> str:
    """Without the marks that are too many."""
    if len(text) <= MOST_MARKS:
        return text
    kept, marks = [], 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


@lru_cache(2**16)
def continues(character: str) -> bool:
    """Whether a character may be composed with one before it: marks, and the vowels and finals of Hangul."""
    first = unicodedata.normalize("NFKD", character)[0]
    return _is_mark(first) or "\u1160" <= first <= "\u11ff" or "\U00016d63" <= first <= "\U00016d67"


@lru_cache(2**16)
def _alone(character: str) -> str:
    return unicodedata.normalize("NFKC", character)


@lru_cache(2**16)
def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
