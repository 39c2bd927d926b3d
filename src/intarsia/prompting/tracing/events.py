"""What was done once: an event, and the tree that events make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from intarsia.prompting.tracing.unpacking import plain, unpack

Kind = Literal["flow", "step", "model", "tool", "search", "note"]
KINDS: tuple[str, ...] = ("flow", "step", "model", "tool", "search", "note")


@dataclass
class Event:
    """One thing that was done.

    - id, parent: 16 hex digits; parent '' is the trace itself. run: in which run of the trace it was done.
    - begun: seconds since 1970; seconds: how long it took, None: it did not end.
    - hash: of the input. raw_input, raw_output: packed JSON, `input` and `output` the typed values again.
    - usage: tokens by kind (`prompt`, `completion`, `cached`, `forced`, `calls`). cost: in the price's unit.
    - error: its type and message; place: file:line. facts: what else is known (`model`, `provider`, `sampling`...).
    - replayed: taken from an earlier run. redacted: what is kept is not all there was."""

    trace: str
    id: str
    parent: str
    kind: str
    name: str
    begun: float
    seconds: float | None = None
    run: int = 1
    hash: str = ""
    code: str = ""
    raw_input: Any = None
    raw_output: Any = None
    usage: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
    error: str = ""
    place: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    replayed: bool = False
    redacted: bool = False

    @property
    def input(self) -> Any:
        """What it was given, of the types it had."""
        return unpack(self.raw_input)

    @property
    def output(self) -> Any:
        """What it gave, of the types it had."""
        return unpack(self.raw_output)

    @property
    def state(self) -> str:
        """`done`, `failed`, `waiting` for a person, or `open`: it did not end."""
        if self.error:
            return "waiting" if self.error.startswith("Waiting:") else "failed"
        return "open" if self.seconds is None else "done"

    def to_json(self) -> dict[str, Any]:
        """Plain data; the values without their types."""
        return {
            "id": self.id, "parent": self.parent, "kind": self.kind, "name": self.name, "state": self.state,
            "begun": self.begun, "seconds": self.seconds, "run": self.run, "replayed": self.replayed,
            "hash": self.hash, "input": plain(self.raw_input), "output": plain(self.raw_output),
            "usage": self.usage, "cost": self.cost, "error": self.error, "place": self.place, "facts": self.facts,
            "redacted": self.redacted,
        }  # fmt: skip


@dataclass
class Node:
    """An event with those it contains, in order of their beginning."""

    event: Event
    children: list[Node] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Event]]:
        """It and all below it, with how deep they are."""
        yield depth, self.event
        for child in self.children:
            yield from child.walk(depth + 1)

    def same(self) -> Any:
        """All of it that does not depend on the clock: equal for two runs of a flow whose models answer alike."""
        event = self.event
        return (
            event.id, event.kind, event.name, event.hash, event.raw_input, event.raw_output, event.usage, event.cost,
            event.error, sorted(event.facts.items(), key=str), sorted((c.same() for c in self.children), key=repr),
        )  # fmt: skip
