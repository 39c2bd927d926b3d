"""What the data level reads and cuts: a document with its sections, and the chunks of one."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

JOIN = " > "
"""Between the headings of a path, where one is written out."""


@dataclass(frozen=True)
class Section:
    """A stretch of a document under one heading; what is under a heading below it is another stretch.

    - path: headings from the outermost; empty: before the first one, or a stretch without any (a page).
    - start, end: characters of the document's text, the heading's own line included.
    - anchor: what a citation puts behind `#`; empty where there is none."""

    path: tuple[str, ...]
    start: int
    end: int
    anchor: str = ""


@dataclass(frozen=True)
class SourceDocument:
    """A whole text that answers may be drawn from.

    - text: never changed after it was read: offsets of sections and chunks count its characters.
    - source: its identity, and what citations name: a path (`notes/a.md`), a row (`faq.csv#3`), a URL.
    - metadata: plain values by name (texts, numbers, truth values, lists of them), to filter by.
    - sections: in order, without gaps; empty: all of it is one. media: the MIME type of what it was read from.
    - hidden: how many pieces the reader left out because no person would have seen them: where instructions to a
      model are hidden, they are hidden there."""

    text: str
    source: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    media: str = "text/plain"
    hidden: int = 0

    @cached_property
    def sha256(self) -> str:
        """Of all that a store keeps of it: equal contents, equal hash."""
        kept = [self.text, self.title, dict(self.metadata), [(s.path, s.start, s.anchor) for s in self.sections]]
        written = json.dumps(kept, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(written.encode()).hexdigest()

    @cached_property
    def _starts(self) -> list[int]:
        return [section.start for section in self.sections]

    def section_at(self, offset: int) -> Section:
        """The section that a character is in."""
        place = bisect_right(self._starts, offset) - 1
        return self.sections[place] if place >= 0 else Section((), 0, len(self.text))


@dataclass(frozen=True)
class Chunk:
    """A stretch of a document, short enough to be embedded and quoted: `text == document.text[start:end]`.

    - path, anchor: of the section it is in. tokens: as the splitter's tokenizer counts them."""

    text: str
    start: int
    end: int
    path: tuple[str, ...] = ()
    anchor: str = ""
    tokens: int = 0

    def with_headings(self, title: str) -> str:
        """The text under its headings, as it is embedded: a stretch of text often says what it is about there alone."""
        return f"{headed(title, self.path)}\n{self.text}".lstrip("\n")


def headed(title: str, path: tuple[str, ...]) -> str:
    """A document's title and a path of headings as one line, what is said twice in a row once."""
    names = [name for name in (title, *path) if name]
    return JOIN.join(name for i, name in enumerate(names) if i == 0 or name != names[i - 1])
