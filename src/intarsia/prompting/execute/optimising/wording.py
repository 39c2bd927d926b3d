"""The wording of a prompt: its stretches of plain text, and a prompt with some of them written anew.

Tags and inputs stay where they are, so that whatever is proposed is still the same prompt, with other words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.execute.prompt import Prompt
from intarsia.prompting.execute.trust import plain

_TAGS = re.compile(r"(\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\})", re.DOTALL)
_MARKS = ("{{", "}}", "{%", "%}", "{#", "#}", "untrusted-")
_FENCED = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
LONGEST = 4000  # characters of a stretch


class Wording:
    """A prompt's stretches of text, in order. editable: numbers of those with words in them."""

    def __init__(self, prompt: Prompt):
        self.prompt = prompt
        self._pieces = _TAGS.split(prompt.body)
        self.texts = tuple(piece.strip() for piece in self._pieces[::2])
        self.editable = tuple(i for i, text in enumerate(self.texts) if re.search(r"\w", text))
        if not self.editable:
            raise BadInput(f"{prompt.name}: has no words of its own that could be written otherwise")

    def with_texts(self, texts: Sequence[str], shots: Sequence[Any] | None = None, into: str = "shots") -> Prompt:
        """The prompt with these stretches instead. shots: what becomes the default of the input `into`."""
        pieces = list(self._pieces)
        for number, (old, new) in enumerate(zip(self.texts, texts, strict=True)):
            if old != new:
                piece = pieces[2 * number]
                start = len(piece) - len(piece.lstrip())
                pieces[2 * number] = piece[:start] + new + piece[start + len(old) :]
        head = self.prompt.source[: len(self.prompt.source) - len(self.prompt.body)]
        if shots is not None:
            head = _with_default(head, into, shots)
        return Prompt(head + "".join(pieces), name=self.prompt.name, folder=self.prompt.folder)


def proposed(reply: str, old: str) -> str | None:
    """The stretch of text that a model wrote; None where it is none: empty, the same as before, too long, or with what
    a template would take for tags."""
    text = plain(reply).strip()
    if fenced := _FENCED.search(text):
        text = fenced[1].strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1].strip()
    if not re.search(r"\w", text) or text == old or len(text) > LONGEST or any(mark in text for mark in _MARKS):
        return None
    return text


def _with_default(head: str, name: str, value: Sequence[Any]) -> str:
    """A header whose input has this default."""
    import yaml

    lines = head.splitlines()
    found = yaml.safe_load("\n".join(lines[1:-1]))
    spec = found["inputs"][name]
    found["inputs"][name] = {**(spec if isinstance(spec, dict) else {"type": spec}), "default": list(value)}
    return f"---\n{yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)}---\n"
