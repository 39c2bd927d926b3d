"""Recording: a trace that is being written, and the steps it is made of.

A step's id is made of its parent's id, kind, name, input hash and how many times the same was begun before under the
same parent. So it does not depend on the clock or on the order in which concurrent steps come, and a flow that is gone
on with finds what it has done."""

from __future__ import annotations

import contextvars
import json
import os
import sqlite3
import sysconfig
import threading
import time
import traceback
import uuid
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from intarsia.errors import BadInput, IntarsiaError, Note, is_disk_full
from intarsia.prompting.tracing.database import connect
from intarsia.prompting.tracing.events import KINDS
from intarsia.prompting.tracing.redacting import Redactor, redacted
from intarsia.prompting.tracing.unpacking import unpack
from intarsia.prompting.tracing.values import dumps, hash_of, pack

if TYPE_CHECKING:
    from intarsia.prompting.tracing.reading import Trace

T = TypeVar("T")
CURRENT: contextvars.ContextVar[Step | None] = contextvars.ContextVar("intarsia_trace", default=None)


class Recording:
    """A trace that is being written.

    - id: of the trace; path: its file; run: 1, and one more each time it is gone on with.
    - root: the step that contains all others: what the whole gave is its `output`."""

    root: Step

    def __init__(
        self, name: str, path: Path, redact: Redactor | None = None, resume: str | None = None, facts: Any = None
    ):
        self.name, self.path, self.redact = name, path, redact
        self._guard = threading.Lock()
        self._file: sqlite3.Connection | None = None
        self._pid = 0
        self.id = uuid.uuid4().hex if resume is None else resume
        self.run = 1
        self.resumed = resume is not None
        if resume is None:
            kept, _ = self.keep(pack(facts or {}, "facts"))
            self._write("INSERT INTO traces VALUES (?, ?, ?, ?)", (self.id, name, time.time(), kept))
        else:
            last = self._read("SELECT max(run) FROM events WHERE trace = ?", (self.id,))
            self.run = (last[0] or 0) + 1

    def _connection(self) -> sqlite3.Connection:
        if self._file is None or self._pid != os.getpid():  # after a fork, the parent's connection is not ours
            self._file, self._pid = connect(self.path, create=True), os.getpid()
        return self._file

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._guard:
            try:
                self._connection().execute(statement, values)
            except sqlite3.Error as error:
                why = "the disk is full" if "full" in str(error) or is_disk_full(error) else str(error)
                raise IntarsiaError(
                    f"{self.path}: the trace cannot be written ({why}); INTARSIA_TRACE=PATH puts it elsewhere, "
                    "INTARSIA_TRACE=off does without"
                ) from None

    def _read(self, statement: str, values: tuple[Any, ...]) -> Any:
        with self._guard:
            return self._connection().execute(statement, values).fetchone()

    def close(self) -> None:
        """Let go of the file."""
        with self._guard:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file = None

    def read(self) -> Trace:
        """What has been recorded so far."""
        from intarsia.prompting.tracing.reading import Trace

        return Trace.open(self.path, self.id)

    def keep(self, data: Any) -> tuple[str, bool]:
        """Packed data as the text that is written, and whether something in it was redacted."""
        text = dumps(data)
        if self.redact is None:
            return text, False
        kept = dumps(redacted(data, self.redact))
        return kept, kept != text

    def said(self, text: str) -> str:
        """A text of the recording's own as it is written: redacted where that is asked for."""
        return self.redact(text, "") if self.redact is not None and text else text


class Step:
    """One event while it is going on: set `output`, `cost`, `facts`, and `used(...)` with what a model says it took.

    - replayed: the output is there already, from an earlier run: nothing is to be done again.
    - id: of the event, '' where nothing is recorded."""

    def __init__(
        self, recording: Recording, parent: Step | None, kind: str, name: str, given: Any, code: str, whole: bool = True
    ):
        if kind not in KINDS:
            raise BadInput(f"'{kind}' is no kind of event; there are: {', '.join(KINDS)}")
        self.recording, self.parent, self.kind, self.name, self.code = recording, parent, kind, name, code
        self._whole = whole  # what an earlier run made of it can be taken in its place
        self.output: Any = None
        self.usage: dict[str, float] = {}
        self.cost: float | None = None
        self.facts: dict[str, Any] = {}
        self.replayed = False
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._guard = threading.Lock()
        self._token: contextvars.Token[Step | None] | None = None
        data = pack(given() if callable(given) and not isinstance(given, type) else given, "input")
        self.hash = hash_of(data)
        self._input = data
        self.id, self._place = ("0" * 15 + "1", 1) if parent is None else parent._child(kind, name, self.hash)
        self._begun = time.perf_counter()

    def _child(self, kind: str, name: str, hashed: str) -> tuple[str, int]:
        """A new step's id, and how many of its kind and name there are with it."""
        with self._guard:
            number = self._counts[kind, name, hashed]
            self._counts[kind, name, hashed] += 1
            self._counts[kind, name, ""] += 1
            place = self._counts[kind, name, ""]
        return hash_of([self.id, kind, name, hashed, number])[:16], place

    def used(self, usage: Any) -> None:
        """Note what was used: an object with `prompt`, `completion`, `cached`, `forced`, `calls` and `cost`."""
        for name in ("prompt", "completion", "cached", "forced", "calls"):
            if value := getattr(usage, name, 0):
                self.usage[name] = self.usage.get(name, 0) + value
        if cost := getattr(usage, "cost", 0):
            self.cost = (self.cost or 0.0) + cost

    def _row(self, phase: str, value: str | None = None, **more: Any) -> None:
        names = ["trace", "run", "id", "parent", "phase", "time", "kind", "name", "hash", "code", "value", *more]
        parent = self.parent.id if self.parent is not None else ""
        r = self.recording
        values = (r.id, r.run, self.id, parent, phase, time.time(), self.kind, self.name, self.hash, self.code, value)
        marks = ", ".join("?" * len(names))
        r._write(f"INSERT INTO events ({', '.join(names)}) VALUES ({marks})", (*values, *more.values()))

    def begin(self) -> None:
        """Take what an earlier run left of it, or write that it begins."""
        if self.recording.resumed and self.parent is not None and self._whole and self._take():
            self._row("again")
            return
        text, changed = self.recording.keep(self._input)
        self._row("begin", text, redacted=changed)
        self._begun = time.perf_counter()

    def _take(self) -> bool:
        r = self.recording
        ends = "SELECT value, redacted FROM events WHERE trace = ? AND id = ? AND phase = 'end' AND error IS NULL "
        row = r._read(ends + "AND code = ? ORDER BY number DESC LIMIT 1", (r.id, self.id, self.code))
        if row is not None and not row[1]:
            self.output, self.replayed = unpack(_json(row[0])), True
            return True
        if row is not None:
            self._tell("what it gave was redacted and is not all there")
        elif r._read(ends + "LIMIT 1", (r.id, self.id)) is not None:
            self._tell("its source has changed")
        elif self.parent is not None and self._changed():
            self._tell("its input has changed")
        return False

    def _changed(self) -> bool:
        """Whether an earlier run did, under the same parent, as many steps of this name, and none with this input: it
        stands in another's place, and is not just one that had not come yet."""
        r, parent = self.recording, self.parent
        where = "FROM events WHERE trace = ? AND parent = ? AND kind = ? AND name = ? AND phase = 'end' AND run < ?"
        of = (r.id, parent.id if parent else "", self.kind, self.name, r.run)
        done = r._read(f"SELECT count(DISTINCT id) {where}", of)[0]
        return done >= self._place and not r._read(f"SELECT count(*) {where} AND hash = ?", (*of, self.hash))[0]

    def _tell(self, why: str) -> None:
        self.facts["redone"] = why
        warnings.warn(f"{self.kind} '{self.name}' is done again: {why}", Note, stacklevel=5)

    def end(self, error: BaseException | None = None) -> None:
        """Write what came of it."""
        if self.replayed and error is None:
            return
        seconds = time.perf_counter() - self._begun
        try:
            output, changed = (None, False) if error is not None else self.recording.keep(pack(self.output, "output"))
            facts = pack(self.facts, "facts")
        except BadInput as refused:
            self.output, self.facts = None, {}
            self.end(refused)
            raise
        if self.recording.redact is not None:
            facts = redacted(facts, self.recording.redact)
        self._row(
            "end", output, redacted=changed, seconds=seconds, usage=dumps(self.usage) if self.usage else None,
            cost=self.cost, facts=dumps(facts) if facts else None,
            error=None if error is None else self.recording.said(f"{type(error).__name__}: {error}"),
            place=None if error is None else place_of(error),
        )  # fmt: skip

    def __enter__(self) -> Step:
        self.begin()
        self._token = CURRENT.set(self)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._token is not None:
            with suppress(ValueError):  # closed in another context than it was opened in: an async generator, say
                CURRENT.reset(self._token)
        try:
            self.end(error)
        except IntarsiaError:
            if error is None:  # what went wrong before is what the caller must see
                raise


def place_of(error: BaseException) -> str:
    """file:line of where an error was raised: the last place that is not in a library, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    library = sysconfig.get_path("stdlib")
    own = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(library)]
    last = (own or list(frames) or [None])[-1]
    return f"{last.filename}:{last.lineno}" if last is not None else ""


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
