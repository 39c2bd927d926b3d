"""A trace as a finding: what it took, by kind, and a timeline whose lines open to what was said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from intarsia.prompting.tracing.events import KINDS, Event
from intarsia.prompting.tracing.reading import Trace
from intarsia.prompting.tracing.unpacking import plain
from intarsia.report import Bar, Block, Column, Finding, Table, Timeline

_TOKENS = ("prompt", "completion", "cached")


class TraceFinding(Finding):
    """What was done in a trace.

    - timeline: every event, in order of beginning inside what contains it. totals: rows of a table by kind."""

    volatile = frozenset({"timeline", "totals", "summary"})

    trace: str
    timeline: Timeline
    totals: list[list[str | int | float | None]]

    def blocks(self) -> list[Block]:
        """The totals, then the timeline."""
        return [self.tables()[0], self.timeline]

    def tables(self) -> list[Table]:
        """The totals by kind of event."""
        columns = [
            Column(name="kind"), Column(name="events", format=",d"), Column(name="failed", format=",d"),
            Column(name="seconds", format=".3g", help="concurrent ones are added up"),
            Column(name="prompt tokens", format=",d"), Column(name="answer tokens", format=",d"),
            Column(name="cached tokens", format=",d", help="of the prompts', not computed again"),
            Column(name="cost", format=".4g"),
        ]  # fmt: skip
        used = [i for i in range(len(columns)) if any(row[i] is not None for row in self.totals)]
        rows = [[row[i] for i in used] for row in self.totals]
        return [Table(title="By kind", columns=[columns[i] for i in used], rows=rows)]


def trace_finding(trace: Trace) -> TraceFinding:
    """The finding of a trace as it is now, finished or not."""
    walked = list(trace.tree().walk())
    root = walked[0][1]
    events = [event for _, event in walked[1:]]
    seconds = root.seconds
    if seconds is None and events:
        seconds = max(e.begun + (e.seconds or 0.0) for e in events) - root.begun
    usage = _usage(events)
    when = datetime.fromtimestamp(trace.begun, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    state = {
        "done": "", "failed": f"; failed: {root.error} ({root.place})", "open": "; it did not end",
        "waiting": f"; {root.error.partition(': ')[2]}",
    }[root.state]  # fmt: skip
    taken = sum(e.replayed for e in events)
    return TraceFinding(
        title=trace.name,
        summary=f"{when}, {len(events)} events in {seconds or 0.0:.3g} s, {usage['prompt']:,} tokens read and "
        f"{usage['completion']:,} written{f', {taken} steps taken from an earlier run' if taken else ''}{state}.",
        technique="trace",
        provenance={"trace": trace.id, "run": root.run},
        trace=trace.id,
        timeline=Timeline(title="What was done", bars=[_bar(depth, event, root.begun) for depth, event in walked]),
        totals=[_row(kind, some) for kind in KINDS if (some := [e for e in events if e.kind == kind])],
    )


def _usage(events: list[Event]) -> dict[str, int]:
    return {name: int(sum(e.usage.get(name, 0) for e in events)) for name in _TOKENS}


def _row(kind: str, events: list[Event]) -> list[str | int | float | None]:
    used = _usage(events)
    tokens = [used[name] if any(name in e.usage for e in events) else None for name in _TOKENS]
    costs = [e.cost for e in events if e.cost is not None]
    failed = sum(e.state == "failed" for e in events)
    return [kind, len(events), failed, sum(e.seconds or 0.0 for e in events), *tokens, sum(costs) if costs else None]


def _bar(depth: int, event: Event, zero: float) -> Bar:
    notes = [event.error] if event.error else ["did not end"] if event.state == "open" else []
    if event.replayed:
        notes.append("taken from an earlier run")
    if event.facts.get("redone"):
        notes.append(f"done again: {event.facts['redone']}")
    details = [(title, readable(data)) for title, data in (("input", event.raw_input), ("output", event.raw_output))
               if data is not None]  # fmt: skip
    if event.usage or event.cost is not None:
        cost = [] if event.cost is None else [f"cost {event.cost:.4g}"]
        details.append(("used", ", ".join([*(f"{k} {v:,g}" for k, v in event.usage.items()), *cost])))
    if event.facts:
        details.append(("facts", readable(event.facts)))
    if event.place:
        details.append(("failed at", event.place))
    name = event.name if event.kind in ("flow", "step") else f"{event.kind}: {event.name}"
    # What was taken from an earlier run took no time in this one.
    start, seconds = (max(event.begun, zero), 0.0) if event.replayed else (event.begun, event.seconds)
    return Bar(
        name=name, kind=event.kind, depth=depth, start=max(0.0, start - zero), seconds=seconds,
        failed=event.state == "failed", note="; ".join(notes), details=details,
    )  # fmt: skip


def readable(data: Any) -> str:
    """Packed data for a person: texts as they are, messages as a conversation, all else as JSON."""
    value = plain(data)
    if isinstance(value, str):
        return value
    if is_talk(value):
        return "\n\n".join(f"{m['role']}:\n{m['content']}{_calls(m)}" for m in value)
    if isinstance(value, dict) and (is_talk(value.get("prompt")) or isinstance(value.get("prompt"), str)):
        rest = {name: item for name, item in value.items() if name != "prompt"}
        return readable(value["prompt"]) + (f"\n\n{json.dumps(rest, ensure_ascii=False, indent=1)}" if rest else "")
    return json.dumps(value, ensure_ascii=False, indent=1)


def is_talk(value: Any) -> bool:
    """Whether a value without types is a conversation."""
    return isinstance(value, list) and bool(value) and all(
        isinstance(m, dict) and {"role", "content"} <= set(m) for m in value
    )  # fmt: skip


def _calls(message: dict[str, Any]) -> str:
    calls = message.get("calls") or []
    return "".join(f"\n→ {c['name']}({json.dumps(c['arguments'], ensure_ascii=False)})" for c in calls)
