"""Errors a person can act on: one line that says what was given, what is wanted and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IntarsiaError(Exception):
    """Something failed although the input was right. The command line exits with `exit_code` and shows no traceback."""

    exit_code = 1


class BadInput(IntarsiaError):
    """What was given cannot be used: a wrong name, path, key, value or file. Raised before any work starts."""

    exit_code = 2


class MissingExtra(IntarsiaError):
    """An optional dependency is not installed."""

    exit_code = 2

    def __init__(self, what: str, extra: str):
        super().__init__(f"{what} needs the extra '{extra}': pip install 'intarsia[{extra}]'")


class Note(UserWarning):
    """Worth knowing, and no error: texts that were cut, say. The command line shows it as one line, once."""


def did_you_mean(name: str, known: Iterable[str], n: int = 3) -> str:
    """A hint to append to an error message: `' (did you mean a, b?)'`, or `''` when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=n, cutoff=0.55)
    return f" (did you mean {', '.join(close)}?)" if close else ""
