"""Characters that a person does not see and a model reads: taken out of texts from outside, and counted.

Joiners and variation selectors stay where writing needs them, one at a time: between letters of scripts that join, in
emoji, after an ideograph. Sources: Unicode Technical Standard 39 §3 and Annex 9 (bidirectional controls); Boucher et
al. 2022, "Bad Characters", §IV."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

JOINERS = "\u200c\u200d"
ZERO_WIDTH = {
    *"\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u200b\u3164\ufeff\uffa0",
    *map(chr, range(0x2060, 0x2065)), *map(chr, range(0x206A, 0x2070)), *map(chr, range(0xFFF9, 0xFFFC)),
    *map(chr, range(0x1D173, 0x1D17B)),
}  # fmt: skip
BIDI = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
# Scripts whose letters change shape beside each other, where a joiner is spelling.
JOINING = ("ARABIC", "SYRIAC", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU",
           "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR", "TIBETAN")  # fmt: skip

# All that may have to go, so that only these are looked at one by one.
_SUSPECTS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufe00-\ufe0f\U000e0000-\U000e0fff"
    + "".join(sorted({*ZERO_WIDTH, *BIDI, *JOINERS}))
    + "]"
)


@dataclass(frozen=True)
class Cleaned:
    """A text without hidden characters. removed: how many of each kind: zero-width, bidi, tag, variation, control."""

    text: str
    removed: dict[str, int] = field(default_factory=dict)


def clean(text: str) -> Cleaned:
    """Take out what cannot be seen: zero-width characters, bidirectional controls, the tags block, variation selectors
    that select nothing, control characters other than tab and line ends."""
    found = hidden_in(text)
    if not found:
        return Cleaned(text)
    removed: dict[str, int] = {}
    for _, kind in found:
        removed[kind] = removed.get(kind, 0) + 1
    away = {at for at, _ in found}
    return Cleaned("".join(c for at, c in enumerate(text) if at not in away), removed)


def hidden_in(text: str) -> list[tuple[int, str]]:
    """Place and kind of each character that `clean` takes out."""
    found = []
    for match in _SUSPECTS.finditer(text):
        at = match.start()
        kind = _kind(text[at])
        if kind is not None and not (kind in ("joiner", "variation") and _needed(text, at, kind)):
            found.append((at, "zero-width" if kind == "joiner" else kind))
    return found


def _kind(character: str) -> str | None:
    code = ord(character)
    if code < 0x7F:
        return "control" if code < 0x20 and character not in "\t\n\r" else None
    if character in JOINERS:
        return "joiner"
    if character in ZERO_WIDTH:
        return "zero-width"
    if character in BIDI:
        return "bidi"
    if 0xE0000 <= code <= 0xE007F or (0xE0080 <= code <= 0xE0FFF and not 0xE0100 <= code <= 0xE01EF):
        return "tag"
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return "variation"
    if unicodedata.category(character) in ("Cc", "Cs"):
        return "control"
    return None


def _needed(text: str, at: int, kind: str) -> bool:
    """Whether a joiner or selector does what it is for. It never does beside another hidden character, but that an
    emoji's selector may stand before a joiner."""
    before = text[at - 1] if at else ""
    after = text[at + 1] if at + 1 < len(text) else ""
    if not before:
        return False
    if kind == "variation":
        if _kind(before) is not None:
            return False
        ideograph = unicodedata.name(before, "").startswith("CJK ")
        return ideograph if ord(text[at]) >= 0xE0100 else ideograph or _pictures(before) or before in "#*0123456789"
    if not after or _kind(after) is not None:
        return False
    if unicodedata.name(before, "").startswith(JOINING):  # in Persian also at the end of a word's first part
        return unicodedata.name(after, "").startswith(JOINING)
    picture = before if _kind(before) is None else (text[at - 2] if at > 1 else "")
    selector = _kind(before) in (None, "variation")
    return text[at] == "\u200d" and selector and bool(picture) and _pictures(picture) and _pictures(after)


def _pictures(character: str) -> bool:
    return unicodedata.category(character) in ("So", "Sk")
