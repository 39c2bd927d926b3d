"""White space: ends of lines of every kind become one, and in the end all of it becomes single spaces."""

from __future__ import annotations

import re

from intarsia.detection.normalising.mapped import Mapped

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\u2028\u2029]")
_RUNS = re.compile(r"\s{2,}|[^\S ]")


def lined(text: Mapped) -> Mapped:
    """With `\\n` for every end of a line, and no white space around the text."""
    ends = ((end.start(), end.end(), "\n") for end in _LINE_ENDS.finditer(text.text))
    return _stripped(text.edited(ends))


def spaced(text: Mapped) -> Mapped:
    """With one space for all white space between two words, and none around the text."""
    runs = ((run.start(), run.end(), " ") for run in _RUNS.finditer(text.text))
    return _stripped(text.edited(runs))


def _stripped(text: Mapped) -> Mapped:
    first = len(text.text) - len(text.text.lstrip())
    stop = len(text.text.rstrip())
    if first >= stop:
        return text.edited([(0, len(text.text), "")])
    return text.edited([(0, first, ""), (stop, len(text.text), "")])
