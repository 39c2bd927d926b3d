"""`dense`: switch rules for the number of tokens off for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_dense: ContextVar[bool] = ContextVar("intarsia_dense", default=False)


@contextlib.contextmanager
def dense() -> Iterator[None]:
    """Inside the block every network works on all its tokens, whatever rules it has."""
    token = _dense.set(True)
    try:
        yield
    finally:
        _dense.reset(token)


def is_dense() -> bool:
    """Whether rules are off just now."""
    return _dense.get()
