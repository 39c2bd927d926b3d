"""`with trace(...)` opens a trace, `with step(...)` adds to it. Where none is open, a step costs very little."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from intarsia.errors import BadInput
from intarsia.prompting.tracing.database import default_path, switched_off
from intarsia.prompting.tracing.recording import CURRENT, Recording, Step
from intarsia.prompting.tracing.redacting import Redactor

T = TypeVar("T")


class _Nothing:
    """A step where no trace is open: takes everything, keeps nothing."""

    __slots__ = ()
    id, replayed, output, cost, usage, parent = "", False, None, None, {}, None

    @property
    def facts(self) -> dict[str, Any]:
        return {}

    def used(self, usage: Any) -> None:
        """Nothing is noted."""

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


_NOTHING = _Nothing()


@contextmanager
def trace(
    name: str, path: Path | str | None = None, redact: Redactor | None = None, *, input: Any = None,
    resume: str | None = None, facts: Any = None,
) -> Iterator[Recording | None]:  # fmt: skip
    """Record every `step` inside the block, in this task and those it starts. Inside another trace it is a step of it.

    - path: the file; default: `INTARSIA_TRACE`, else in Intarsia's cache. redact: as `redact_secrets`; None: nothing.
    - input: what the whole was given. resume: id of a trace to go on with: what it holds is not done again.
    - facts: what else is to be known of it from its beginning on: where it can be gone on with, say.

    Gives the `Recording`; None where `INTARSIA_TRACE=off`. Raises `BadInput` for a trace that is not there."""
    if switched_off():
        if resume is not None:
            raise BadInput("a trace cannot be gone on with where INTARSIA_TRACE=off: nothing is recorded")
        yield None
        return
    outer = CURRENT.get()
    if outer is not None and path is None and resume is None:
        with Step(outer.recording, outer, "flow", name, input, "", whole=False) as inner:
            yield inner.recording
        return
    file = Path(path).expanduser() if path is not None else default_path()
    if resume is not None:
        from intarsia.prompting.tracing.reading import Trace

        resume = Trace.open(file, resume).id
    recording = Recording(name, file, redact, resume, facts)
    try:
        recording.root = Step(recording, None, "flow", name, input, "")
        with recording.root:
            yield recording
    finally:
        recording.close()


def step(kind: str, name: str, input: Any = None, *, code: str = "") -> Step | _Nothing:
    """`with step("model", "generate", given) as s: s.output = ...`: one event of the trace that is open, if one is.

    - input: what it was given, of any kind that can be kept; or a function of nothing that makes it, which is called
      only where it is recorded. code: hash of the source of what runs, if a change of it makes the old output void.

    An error inside is recorded with its place. Raises `BadInput` for what cannot be kept, with the path of it."""
    parent = CURRENT.get()
    if parent is None:
        return _NOTHING
    return Step(parent.recording, parent, kind, name, input, code)


def note(name: str, value: Any = None) -> None:
    """Write something down where it happened: what was left out, which way was taken."""
    with step("note", name, value):
        pass


async def recorded(
    kind: str, name: str, input: Any, make: Callable[[], Awaitable[T]], *, code: str = "", **facts: Any
) -> T:
    """What `make()` gives, as a step: recorded where a trace is open, and taken from it where an earlier run has it.
    What the result says of its `usage` is noted."""
    with step(kind, name, input, code=code) as s:
        if s.replayed:
            return s.output
        s.facts.update(facts)
        s.output = made = await make()
        s.used(getattr(made, "usage", None))
        return made


def tracing() -> bool:
    """Whether a trace is open here."""
    return CURRENT.get() is not None


def current() -> Recording | None:
    """The trace that is open here, if one is."""
    found = CURRENT.get()
    return found.recording if found is not None else None


def carried(function: Callable[..., T]) -> Callable[..., T]:
    """The same function for another thread: what it does there belongs to the trace that is open here."""
    context = contextvars.copy_context()
    return lambda *given, **named: context.copy().run(function, *given, **named)
