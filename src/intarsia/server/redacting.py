"""What must not be in a log, a trace or an error: keys."""

from __future__ import annotations

import logging
import re
from typing import Any

_SECRETS = re.compile(r"(?i)\bia-[A-Za-z0-9_-]{8,}|(?<=bearer )\s*\S+|\bsk-[A-Za-z0-9_-]{8,}")
HIDDEN = "[key]"


def redact(text: str) -> str:
    """A text without keys of this house, or whatever follows `Bearer`."""
    return _SECRETS.sub(HIDDEN, text)


def redacted(value: Any) -> Any:
    """The same of all texts in a JSON value."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): redacted(inner) for key, inner in value.items()}
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
