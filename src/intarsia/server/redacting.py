"""What must not be in a log, a trace or an error: keys."""

from __future__ import annotations

import logging
from typing import Any

from intarsia.prompting.tracing.redacting import redact_secrets


def redact(text: str) -> str:
    """A text without what looks like a key, a token or a password."""
    return redact_secrets(text)


def redacted(value: Any) -> Any:
    """The same of all texts in a JSON value."""
    if isinstance(value, str):
        return redact_secrets(value)
    if isinstance(value, dict):
        # Names that a log itself gives ("key": whose it is) are no secrets: values are judged by their look alone.
        return {redact_secrets(str(key)): redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return value


class Redacting(logging.Filter):
    """Takes keys out of log records, whoever wrote them there."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


def install() -> None:
    """Have the logs of a server, and those of the library that runs it, go through the filter."""
    for name in ("intarsia.server", "uvicorn.error", "uvicorn.access", "mcp", "asyncio"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, Redacting) for one in logger.filters):
            logger.addFilter(Redacting())
