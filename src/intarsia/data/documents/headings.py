"""The headings of a text, as Markdown and reStructuredText write them, each with its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_ADORNED = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*")
_NO_TITLE = re.compile(r" {0,3}(?:[-*+>|#]|\d+[.)] |`{3}|~{3}|    |\t)")


@dataclass(frozen=True)
class Heading:
    """A heading: level 1 is the outermost; start: the character its line begins at; anchor: what a link to it puts
    behind `#`. One without a title ends what is open at its level and below."""

    level: int
    title: str
    start: int
    anchor: str = ""


def markdown_headings(text: str) -> list[Heading]:
    """Headings of Markdown (`# One`, and lines underlined with `===` or `---`), not those in fenced code. Anchors are
    made of titles as code forges do, repeated ones numbered."""
    out: list[Heading] = []
    fence, before, seen = "", (0, ""), Counter[str]()
    for start, line in _lines(text):
        if found := _FENCE.match(line):
            mark = found[1]
            if not fence:
                fence = mark
            elif mark[0] == fence[0] and len(mark) >= len(fence) and not line.strip(" \t" + mark[0]):
                fence = ""
            before = (start, "")
            continue
        if fence:
            continue
        if (found := _ATX.fullmatch(line)) and found[2]:
            out.append(_anchored(len(found[1]), found[2], start, seen))
            before = (start, "")
        elif before[1] and (found := _UNDERLINE.fullmatch(line)):
            out.append(_anchored(1 if found[1][0] == "=" else 2, before[1].strip(), before[0], seen))
            before = (start, "")
        elif before[1] or _NO_TITLE.match(line) or not line.strip():
            before = (start, "")  # a paragraph of several lines is no title
        else:
            before = (start, line)
    return out


def rst_headings(text: str) -> list[Heading]:
    """Headings of reStructuredText: a line underlined, and perhaps overlined, with signs as long as it is. Which signs
    mean which level is found from their order."""
    out: list[Heading] = []
    styles: list[str] = []
    seen = Counter[str]()
    lines = list(_lines(text))
    for (at, above), (start, title), (_, below) in zip([(0, ""), *lines], lines, lines[1:], strict=False):
        words, under = title.strip(), below.strip()
        if not words or not _ADORNED.fullmatch(below) or len(under) < len(words) or _ADORNED.fullmatch(title):
            continue
        over = above.strip() == under
        if not over and (title != title.lstrip() or above.strip()):
            continue  # the last line of a paragraph, or a table
        style = under[0] + ("^" if over else "")
        if style not in styles:
            styles.append(style)
        out.append(_anchored(styles.index(style) + 1, words, at if over else start, seen))
    return out


def slug(title: str) -> str:
    """A title as an anchor: words in lower case, joined by `-`."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


def _anchored(level: int, title: str, start: int, seen: Counter[str]) -> Heading:
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", lambda m: m[1] or "", title)
    anchor = slug(title)
    number = seen[anchor]
    seen[anchor] += 1
    return Heading(level, title, start, f"{anchor}-{number}" if number else anchor)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without their ends, each with its place; a page's end (`\\f`) or U+2028 ends none."""
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1
