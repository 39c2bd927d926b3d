"""Texts and questions as words for the index: FTS5 gets them divided, so that a name of a program is found as a whole
and by its parts, and scripts that write no spaces are found at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

MOST = 64
"""Different words of a question that are looked up."""

# Scripts that write no space between words: in pairs of signs, as a word is unknown.
_RUN = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(f"[{_RUN}]+|[^{_RUN}]+")
_IS_RUN = re.compile(f"[{_RUN}]")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
COMMON = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does", "for", "from",
    "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "no", "not", "of", "on", "or",
    "our", "shall", "should", "so", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
    "to", "was", "we", "were", "what", "when", "where", "which", "who", "whom", "why", "will", "with", "would", "you",
    "your",
))  # fmt: skip


@cache
def _pattern() -> re.Pattern[str]:
    """Words with the marks that belong to their letters, and words joined by points."""
    marks = "".join(chr(n) for n in range(0x300, 0x10000) if unicodedata.category(chr(n))[0] == "M")
    word = f"[\\w{marks}]+"
    return re.compile(rf"{word}(?:\.{word})*")


def words_of(text: str) -> Iterator[str]:
    """The words of a text, folded: of a name with points, underscores or humps the whole (with `_` behind it, so that
    no ending is taken off) and its parts, of Chinese, Japanese and Thai each sign and each pair."""
    for found in _pattern().finditer(unicodedata.normalize("NFKC", text)):
        word = found[0]
        if not _IS_RUN.search(word):
            yield from _latin(word)
            continue
        for part in _RUNS.findall(word):
            if _IS_RUN.match(part):
                yield from part
                yield from (part[i : i + 2] for i in range(len(part) - 1))
            else:
                yield from _latin(part.strip("."))


def _latin(word: str) -> Iterator[str]:
    name = word.strip("_")
    parts = [part for part in re.split(r"[._]+", name) if part]
    if len(parts) > 1 or (word != name and parts):
        yield f"{word.casefold().rstrip('_')}_"
    for part in parts:
        humps = _HUMP.findall(part) if part.isascii() and part != part.lower() else ()
        if len(humps) > 1:
            yield f"{part.casefold()}_"
            yield from (hump.casefold() for hump in humps)
            if len(parts) == 1:
                yield part.casefold()  # as it is written in lower case
        else:
            yield part.casefold()


def is_name(text: str) -> bool:
    """Whether a text is one name of a program and nothing else: `json.loads()`, `read_text`, `HTTPServer`."""
    words = _pattern().findall(text)
    return len(words) == 1 and next(words_of(words[0]), "").endswith("_")


def indexed(text: str) -> str:
    """A text as the index takes it."""
    return " ".join(words_of(storable(text)))


def telling(text: str) -> list[str]:
    """The different words of a text that say what it is about: those that are everywhere are left out where there are
    others."""
    found = dict.fromkeys(words_of(storable(text)))
    pairs = [word for word in found if len(word) > 1 or not _IS_RUN.match(word)]
    alone = [word for word in found if word not in pairs and not any(word in pair for pair in pairs)]
    words = [*pairs, *alone]
    return [word for word in words if word not in COMMON] or words


def asked(text: str) -> str:
    """A question in FTS5's language: any of its telling words. Empty where it has none; never a syntax error, whatever
    the text holds."""
    return " OR ".join(f'"{word}"' for word in telling(text)[:MOST])


def storable(text: str) -> str:
    """A text without half surrogate pairs, which SQLite cannot hold, and without NUL, at which it would end."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
