"""Errors a person can act on: one line that says what was given, what is wanted and how to mend it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class IntarsiaError(Exception):
    """Something failed although the input was right. The command line exits with `exit_code` and shows no traceback."""

    exit_code = 1


class BadInput(IntarsiaError):
    """What was given cannot be used: a wrong name, path, key, value or file. Raised before any work starts."""

    exit_code = 2


class OutOfBudget(IntarsiaError):
    """What was asked for is possible by all that could be told before, and was not reached by what was measured.

    - finding: what was measured; the command line shows it."""

    exit_code = 3

    def __init__(self, message: str, finding: Any = None):
        super().__init__(message)
        self.finding = finding


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


def first_line(error: BaseException, most: int = 300) -> str:
    """The first line of another library's error that says anything, for a message of one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:most]


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn an error of a folder that cannot be written to into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise
        raise BadInput(f"{folder}: cannot be written to ({error.strerror}); give a folder that can") from None


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error, also where a library wrapped it in one of its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "no space left on device" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False
