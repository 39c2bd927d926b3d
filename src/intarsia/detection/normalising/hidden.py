"""Characters that nobody sees: zero-width spaces, marks of direction, fillers, control characters."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from intarsia.detection.normalising.found import Found
from intarsia.detection.normalising.mapped import Mapped

# White space of every kind is not among them: it becomes a space.
_HIDDEN = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters
    "\u00ad\u034f\u061c\u115f\u1160\u3164\uffa0\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufe00-\ufe0f\U000e0000-\U000e0fff"  # selectors of variants, tags
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\ud800-\udfff"  # halves of surrogate pairs: no characters, but they come of broken files
)
HIDDEN = re.compile(f"[{_HIDDEN}]+")
# Scripts in which a joiner (U+200C, U+200D) is spelling: Arabic, the Indian ones, Mongolian.
_JOINING = re.compile("[\u0600-\u109f\u1780-\u18af]")
_JOINERS, _IN_SYMBOLS = "\u200c\u200d", frozenset("\u200d\ufe0e\ufe0f")


def without_hidden(text: Mapped) -> tuple[Mapped, list[Found]]:
    """Without hidden characters, and the finding that names them.

    Those that belong to an emoji or to a variant of a Chinese character are taken out without being told of; a single
    joiner between letters of a script that spells with joiners stays."""
    edits, spans, names = [], [], Counter[str]()
    for found in HIDDEN.finditer(text.text):
        first, stop = found.span()
        before, after = text.text[first - 1 : first], text.text[stop : stop + 1]
        if stop == first + 1 and found[0] in _JOINERS and _JOINING.match(before) and _JOINING.match(after):
            continue
        edits.append((first, stop, ""))
        if not _in_symbol(found[0], before, after):
            spans.append(text.span(first, stop))
            names.update(map(_name, found[0]))
    told = [Found("hidden_chars", tuple(spans), tuple(names.most_common()))] if spans else []
    return text.edited(edits), told


def _in_symbol(hidden: str, before: str, after: str) -> bool:
    """Whether they are part of an emoji, or of a character that has variants."""
    if before == "\U0001f3f4":  # flags of regions are a black flag and tags
        return all("\U000e0020" <= character <= "\U000e007f" for character in hidden)
    if after == "\u20e3":  # a key
        return hidden == "\ufe0f"
    variant = before > "\x7f" and unicodedata.category(before) in ("So", "Sk", "Sm", "Po", "Lo")
    selectors = all(character in _IN_SYMBOLS or "\U000e0100" <= character <= "\U000e01ef" for character in hidden)
    return variant and selectors


def _name(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return "half a surrogate pair"
    number = f"U+{ord(character):04X}"
    if unicodedata.category(character) == "Cc":
        return f"control character {number}"
    return unicodedata.name(character, number).lower()
