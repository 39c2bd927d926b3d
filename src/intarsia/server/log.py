"""The log of requests: a line of JSON each. What was asked and answered is in it only where that is asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intarsia.errors import writing_to
from intarsia.prompting.base import Message
from intarsia.server.record import Record
from intarsia.server.redacting import redact, redacted


class RequestLog:
    """Appends a line a request to a file that its owner alone may read.

    - content: whether prompts and answers are in it. redact: what else is taken out of these; keys always are."""

    def __init__(self, path: str | Path, *, content: bool = False, redact: Callable[[str], str] | None = None):
        self.path, self.content, self._redact = Path(path).expanduser(), content, redact
        with writing_to(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def __call__(self, record: Record) -> None:
        """Write a line. One write a line: processes that share a file do not mix theirs."""
        line = json.dumps(redacted(self.row(record)), ensure_ascii=False) + "\n"
        os.write(self._file, line.encode("utf-8", "replace"))

    def row(self, record: Record) -> dict[str, Any]:
        """What a line says."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.at)) + f".{int(record.at % 1 * 1000):03d}Z"
        out: dict[str, Any] = {
            "time": stamp, "id": redact(record.id), "method": record.method, "route": record.route,
            "status": record.status, "seconds": round(record.seconds, 4),
        }  # fmt: skip
        more = {
            "key": record.key, "model": record.model, "stream": record.stream, "error": record.error,
            "first_token_seconds": round(record.first, 4) if record.first is not None else None,
            "prompt_tokens": record.usage.prompt, "completion_tokens": record.usage.completion,
            "cached_tokens": record.usage.cached, "finish": record.finish, **record.facts,
        }  # fmt: skip
        out |= {name: value for name, value in more.items() if value}
        if self.content and record.asked is not None:
            out |= {"asked": self._said(record.asked), "answered": self._said(record.answered)}
        return out

    def _said(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value) if self._redact else value
        if isinstance(value, Message):
            return {k: self._said(v) for k, v in dataclasses.asdict(value).items() if v}
        if isinstance(value, dict):
            return {k: self._said(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._said(inner) for inner in value]
        return value

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
