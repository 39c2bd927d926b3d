"""What is known of a request while it is answered: log, metrics, traces and limits read it when it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from intarsia.prompting.base import Usage

KEY = "intarsia.record"


@dataclass
class Record:
    """One request.

    - route: the path's pattern; operation: as OpenTelemetry calls it. model: the name that was asked for.
    - first: seconds to the first token of a stream. seconds: to the end. usage: tokens.
    - parent: the trace that it is part of (`traceparent`). key: the name of the key, never the key.
    - error: a code, never a message with anybody's text.
    - asked, answered: content; filled only where the log is to hold it."""

    id: str
    method: str = ""
    route: str = ""
    operation: str = ""
    model: str = ""
    stream: bool = False
    begun: float = field(default_factory=time.perf_counter)
    at: float = field(default_factory=time.time)
    first: float | None = None
    seconds: float = 0.0
    status: int = 0
    usage: Usage = field(default_factory=lambda: Usage(calls=0))
    finish: list[str] = field(default_factory=list)
    key: str = ""
    error: str = ""
    parent: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    keep_content: bool = False
    asked: Any = None
    answered: Any = None

    def token(self) -> None:
        """A first piece of the answer is there."""
        if self.first is None:
            self.first = time.perf_counter() - self.begun


def record_of(connection: HTTPConnection | Scope) -> Record:
    """The record of a request; a fresh one where nobody keeps records."""
    scope = connection if isinstance(connection, dict) else connection.scope
    return scope.setdefault(KEY, Record(""))
