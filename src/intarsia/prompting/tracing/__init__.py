"""Traces: what was asked and answered, step by step.

    with trace("answer a question") as t:             # what is inside, in this task and those it starts, is recorded
        with step("search", "manual", query) as s:    # kinds: flow, step, model, tool, search, note
            s.output = found = store.search(query)
        reply = await recorded("model", "generate", given, lambda: backend.generate(...), model=backend.name)
    print(t.read().finding())

Where no trace is open, a step costs next to nothing. `INTARSIA_TRACE=off` records nothing anywhere,
`INTARSIA_TRACE=PATH` says where. A model's event has the messages as they are sent in its input, its `Usage` by
`s.used(reply.usage)`, and in `s.facts` what is known: `model`, `provider`, `fingerprint`, `sampling`."""

from __future__ import annotations

from intarsia.lazy import lazily
from intarsia.prompting.tracing.database import switched_off
from intarsia.prompting.tracing.events import KINDS, Event, Node
from intarsia.prompting.tracing.keeping import remove, size
from intarsia.prompting.tracing.opening import carried, current, note, recorded, step, trace, tracing
from intarsia.prompting.tracing.reading import Trace, traces
from intarsia.prompting.tracing.recording import Recording, Step, place_of
from intarsia.prompting.tracing.redacting import Redactor, redact_secrets
from intarsia.prompting.tracing.unpacking import plain, stands_for, unpack
from intarsia.prompting.tracing.values import NotSerialisable, hash_of, pack, register

_HOMES = {
    "TraceFinding": "intarsia.prompting.tracing.finding",
    "export": "intarsia.prompting.tracing.exporting",
    "otlp": "intarsia.prompting.tracing.exporting",
    "spans": "intarsia.prompting.tracing.exporting",
}

__all__ = [
    "KINDS",
    "Event",
    "Node",
    "NotSerialisable",
    "Recording",
    "Redactor",
    "Step",
    "Trace",
    "TraceFinding",
    "carried",
    "current",
    "export",
    "hash_of",
    "note",
    "otlp",
    "pack",
    "place_of",
    "plain",
    "recorded",
    "redact_secrets",
    "register",
    "remove",
    "size",
    "spans",
    "stands_for",
    "step",
    "switched_off",
    "trace",
    "traces",
    "tracing",
    "unpack",
]

__getattr__ = lazily(__name__, _HOMES)
