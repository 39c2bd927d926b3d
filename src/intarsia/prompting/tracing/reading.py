"""Reading traces: which there are, and what one holds."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.tracing.database import connect, default_path
from intarsia.prompting.tracing.events import Event, Node
from intarsia.prompting.tracing.unpacking import plain, unpack
from intarsia.prompting.tracing.values import pack

if TYPE_CHECKING:
    from intarsia.prompting.tracing.finding import TraceFinding

_FIELDS = (
    "run, id, parent, phase, time, kind, name, hash, code, value, redacted, seconds, usage, cost, error, place, facts"
)


@dataclass(frozen=True)
class Trace:
    """One trace in a file. id: 32 hex digits; begun: seconds since 1970; facts: what it was opened with."""

    path: Path
    id: str
    name: str
    begun: float
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    @staticmethod
    def open(path: Path | str | None = None, id: str | None = None) -> Trace:
        """A trace by the beginning of its id; None: the latest. path: default as `trace`'s.

        Raises `BadInput` for a file that holds no traces, and for an id that none or several have."""
        file = Path(path).expanduser() if path is not None else default_path()
        with closing(connect(file)) as connection:
            if id is None:
                found = _traces(connection, "ORDER BY begun DESC, id LIMIT 1")
                missing = f"{file}: no trace in it yet"
            else:
                hex_digits = re.fullmatch("[0-9a-f]+", id.lower())
                begins = (id.lower() + "%",)
                found = _traces(connection, "WHERE id LIKE ? ORDER BY begun LIMIT 3", begins) if hex_digits else []
                missing = f"no trace '{id}' in {file}; `intarsia traces ls` lists them"
        if not found:
            raise BadInput(missing)
        if len(found) > 1:
            raise BadInput(f"several traces begin with '{id}': {', '.join(f[0][:12] for f in found)}; give more of it")
        return Trace(file, *found[0])

    def events(self, every_run: bool = False) -> list[Event]:
        """What was done, in order of beginning. every_run: also what a later run did again, in the order of runs."""
        with closing(connect(self.path)) as connection:
            rows = connection.execute(
                f"SELECT {_FIELDS} FROM events WHERE trace = ? ORDER BY number", (self.id,)
            ).fetchall()
        done: dict[tuple[str, int], Event] = {}
        again: dict[str, set[int]] = {}
        for run, id, parent, phase, when, kind, name, hashed, code, value, hidden, *rest in rows:
            if phase == "again":
                again.setdefault(id, set()).add(run)
                continue
            event = done.get((id, run))
            if event is None:
                event = done[id, run] = Event(self.id, id, parent, kind, name, when, run=run, hash=hashed, code=code)
            event.redacted |= bool(hidden)
            data = json.loads(value) if value is not None else None
            if phase == "begin":
                event.raw_input = data
                continue
            seconds, usage, cost, error, place, facts = rest
            event.raw_output, event.seconds, event.cost = data, seconds, cost
            event.usage, event.facts = json.loads(usage or "{}"), json.loads(facts or "{}")
            event.error, event.place = error or "", place or ""
        if every_run:
            return sorted(done.values(), key=lambda e: (e.run, e.begun))
        return _live(done, again)

    def tree(self) -> Node:
        """The events as they contain each other; the root is the trace itself."""
        events = self.events()
        if not events:  # killed before its first event
            return Node(Event(self.id, "", "", "flow", self.name, self.begun))
        nodes = {event.id: Node(event) for event in events}
        for event in events[1:]:
            nodes[event.parent].children.append(nodes[event.id])
        return nodes[events[0].id]

    def finding(self) -> TraceFinding:
        """A table and a timeline, for the terminal and for `intarsia.report.render_finding`."""
        from intarsia.prompting.tracing.finding import trace_finding

        return trace_finding(self)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "id": self.id, "name": self.name, "begun": self.begun, "facts": plain(pack(self.facts)),
            "events": [e.to_json() for e in self.events()],
        }  # fmt: skip


def _live(done: dict[tuple[str, int], Event], again: dict[str, set[int]]) -> list[Event]:
    """Of several runs, what the last one did or took over: under a step done in a run, what that run touched."""
    runs: dict[str, list[int]] = {}
    children: dict[str, list[str]] = {}
    for id, run in done:
        runs.setdefault(id, []).append(run)
    for (id, run), event in done.items():
        if run == runs[id][0]:
            children.setdefault(event.parent, []).append(id)
    out: list[Event] = []

    def add(id: str, within: int) -> None:
        own = [run for run in runs[id] if run <= within]
        event = done[id, own[-1]]
        if within in again.get(id, ()):  # the end that was taken, not a later beginning that came to nothing
            ended = [run for run in own if done[id, run].state == "done"]
            event = done[id, (ended or own)[-1]]
            event.replayed = True
        out.append(event)
        for child in children.get(id, ()):
            if any(run == event.run for run in runs[child]) or event.run in again.get(child, ()):
                add(child, event.run)

    for root in children.get("", ()):
        add(root, runs[root][-1])
    return [out[0], *sorted(out[1:], key=lambda e: e.begun)] if out else []


def _traces(connection: sqlite3.Connection, more: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    rows = connection.execute(f"SELECT id, name, begun, facts FROM traces {more}", values).fetchall()
    return [(*row, unpack(json.loads(facts))) for *row, facts in rows]


def traces(path: Path | str | None = None) -> Iterator[Trace]:
    """Every trace in a file, the latest first."""
    file = Path(path).expanduser() if path is not None else default_path()
    with closing(connect(file)) as connection:
        found = _traces(connection, "ORDER BY begun DESC, id")
    for row in found:
        yield Trace(file, *row)
