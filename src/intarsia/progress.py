"""Progress on anything that takes over two seconds, wherever it runs.

Code deep inside a technique says `for batch in track(batches, "training")`; who shows it, and how, is decided once by
the front (the command line shows a bar, a server sends events, a library call stays silent)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Event:
    """One beat of progress: `done` of `total` units of `task` (None: unknown). `facts` are short live figures."""

    task: str
    done: int
    total: int | None
    facts: dict[str, float | str] = field(default_factory=dict)
    finished: bool = False


Listener = Callable[[Event], None]
_listener: ContextVar[Listener | None] = ContextVar("intarsia_progress", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Send every event raised inside the block to `listener` (None silences)."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(task: str, done: int, total: int | None = None, finished: bool = False, **facts: float | str) -> None:
    """Report one beat by hand, where `track` does not fit."""
    if listener := _listener.get():
        listener(Event(task, done, total, facts, finished))


def track(
    items: Iterable[T], task: str, total: int | None = None, facts: dict[str, float | str] | None = None
) -> Iterator[T]:
    """Iterate over `items` and report each one. `facts` is read at every beat, so the loop body may update it."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    done = 0
    tell(task, 0, total)
    try:
        for item in items:
            yield item
            done += 1
            tell(task, done, total, **(facts or {}))
    finally:
        tell(task, done, total, finished=True, **(facts or {}))
