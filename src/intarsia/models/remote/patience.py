"""Patience: what is worth asking again, and after how long."""

from __future__ import annotations

import logging
import random
import time
from email.utils import parsedate_to_datetime
from typing import Any

from intarsia.errors import MissingExtra

LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


def may_pass(code: int) -> bool:
    """Whether what an HTTP status says may be otherwise in a while: a busy or failing server, not a wrong request."""
    return code == 429 or (code >= 500 and code != 501)


def waiting(number: int, pause: float, after: float = 0.0) -> float:
    """Seconds to wait after try `number` (from 0): `pause`, doubled every time, or what the server asks for if that is
    longer; `LONGEST_WAIT` at most."""
    return min(max(pause * 2**number, after), LONGEST_WAIT)


def seconds(said: str | None) -> float:
    """What `Retry-After` asks for, as seconds or as a date; 0 where it says nothing that can be read."""
    if not said:
        return 0.0
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def attempts(tries: int, pause: float) -> Any:
    """`async for attempt in attempts(5, 1.0): with attempt: ...` asks again after errors whose `retryable` says so.

    Seconds between tries are as `waiting` says (`after` of the error: what the server asks for), and up to `pause` more
    by chance, so that many who were sent away do not come back together. The last error is let through. Raises
    `MissingExtra` without `remote`."""
    try:
        import stamina
    except ImportError:
        raise MissingExtra("asking again", "remote") from None
    # Without a handler Python prints the bare name of the event of each retry.
    if not (logger := logging.getLogger("stamina")).handlers:
        logger.addHandler(logging.NullHandler())
    number = -1

    def again(error: Exception) -> bool | float:
        nonlocal number
        number += 1
        if not getattr(error, "retryable", False):
            return False
        return waiting(number, pause, getattr(error, "after", None) or 0.0) + random.uniform(0, pause)

    return stamina.retry_context(on=again, attempts=max(1, tries), timeout=None)
