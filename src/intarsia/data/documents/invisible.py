"""Signs that stand in a text and that nobody sees. Instructions to a model are hidden in them: tags spell out ASCII,
selectors of variants any byte."""

from __future__ import annotations

import re

# Tags (but in flags, where they follow the black flag), zero-width spaces and joiners of words, invisible operators,
# marks that turn the direction of writing around, interlinear notes, selectors of variants that no sign has.
_UNSEEN = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007e]{1,7}\U000e007f)|"
    "[\U000e0000-\U000e0fff\u200b\u2060-\u2064\u206a-\u206f\ufeff\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\u180e\u115f"
    "\u1160\u3164\uffa0]+"
)


def without_unseen(text: str) -> tuple[str, int]:
    """The text without signs that nobody sees, and how many runs of them there were. What joins letters and pictures
    (U+200C, U+200D, U+FE0E, U+FE0F) and soft hyphens stay: they change what is seen."""
    if text.isascii():
        return text, 0
    return _without(_UNSEEN, text)


# Fenced code, code in a line, and what a rendered page of Markdown does not show: HTML's comments, and definitions of
# links that are no links.
_COMMENT = re.compile(
    r"(^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\2[`~]*[ \t]*$|\Z)|(?<!`)(`+)(?!`)[^\n]*?(?<!`)\3(?!`))"
    r"|<!--.*?(?:-->|\Z)|^ {0,3}\[(?://|comment|_)\]:[^\n]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)


def without_comments(text: str) -> tuple[str, int]:
    """A text of Markdown without its comments, and how many there were. What stands in code stays: there it is seen."""
    return _without(_COMMENT, text)


def _without(pattern: re.Pattern[str], text: str) -> tuple[str, int]:
    """What is found goes, but for a match of the pattern's first group, which stays."""
    count = 0

    def kept(found: re.Match[str]) -> str:
        nonlocal count
        count += found[1] is None
        return found[1] or ""

    return pattern.sub(kept, text), count
