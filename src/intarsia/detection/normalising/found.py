"""What normalising found in a text, and changed or left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["hidden_chars", "homoglyphs", "chat_opener", "references", "table", "equation", "header"]

_WORDS: dict[Kind, tuple[str, str]] = {
    "hidden_chars": ("hidden character", "hidden characters"),
    "homoglyphs": ("letter of another alphabet", "letters of another alphabet"),
    "chat_opener": ("opens as a chat assistant does", "opens as a chat assistant does"),
    "references": ("list of references", "lists of references"),
    "table": ("table", "tables"),
    "equation": ("equation", "equations"),
    "header": ("heading", "headings"),
}


@dataclass(frozen=True)
class Found:
    """All findings of one kind in a text.

    - kind: `hidden_chars`, `homoglyphs` (folded into the letters they look like) and `chat_opener` tell of how the text
      was made; `references`, `table`, `equation` and `header` only say what was left out.
    - spans: where they stand in the original, (start, end) each, in order.
    - what: what they are, with how often each is there, the most frequent first: names of characters, the words of an
      opener; empty for what was only left out."""

    kind: Kind
    spans: tuple[tuple[int, int], ...]
    what: tuple[tuple[str, int], ...] = ()

    @property
    def count(self) -> int:
        """How many there are: characters, or parts of the text."""
        return sum(number for _, number in self.what) or len(self.spans)

    def __str__(self) -> str:
        one, many = _WORDS[self.kind]
        if self.kind == "chat_opener":
            return f"{one}: {' '.join(words for words, _ in self.what)}"
        said = f"{self.count} {one if self.count == 1 else many}"
        if not self.what:
            return f"left out: {said}"
        return f"{said}: {', '.join(f'{name} ({number})' for name, number in self.what)}"
