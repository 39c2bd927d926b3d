"""Patience: what is worth asking again, and after how long."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

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
