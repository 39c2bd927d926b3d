"""How often a key may ask, and how many tokens it may have."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.server.keys.store import Key, Keys

_UNITS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "day": 86400}
_RATE = re.compile(r"(\d{1,9})/(s|sec|min|h|hour|day)")


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds; all of them may come at once (a token bucket)."""

    count: int
    unit: str

    @staticmethod
    def parse(text: str) -> Rate:
        """`60/min`. Raises `BadInput`."""
        found = _RATE.fullmatch(text.strip())
        if not found or int(found[1]) < 1:
            raise BadInput(f"rate '{text}': give a number and a unit, as in 60/min (units: {', '.join(_UNITS)})")
        return Rate(int(found[1]), found[2])

    @property
    def seconds(self) -> int:
        """Of the unit."""
        return _UNITS[self.unit]

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"


@dataclass
class _Bucket:
    left: float
    at: float


@dataclass(frozen=True)
class Ruling:
    """Whether a request may go on. after: seconds to wait where not; headers: what the client is told either way."""

    allowed: bool
    headers: dict[str, str]
    after: float = 0.0
    why: str = ""


class Limits:
    """Buckets of requests in memory, and tokens of the day in the file of keys (written by `flush`).

    clock: seconds since 1970."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.time):
        self.keys, self.clock = keys, clock
        self._buckets: dict[str, _Bucket] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        self._fresh: dict[tuple[str, str], int] = {}

    def ask(self, key: Key) -> Ruling:
        """Take one request from a key's bucket."""
        now, headers = self.clock(), {}
        if key.tokens_per_day is not None:
            left = key.tokens_per_day - self._spent(key.name, now)
            after = 86400 - now % 86400
            headers |= _headers("tokens", key.tokens_per_day, max(left, 0), after)
            if left <= 0:
                return Ruling(False, headers, after, f"the {key.tokens_per_day:,} tokens of this day are used up")
        if key.rate is not None:
            share = key.rate.count / key.rate.seconds
            bucket = self._buckets.setdefault(key.name, _Bucket(float(key.rate.count), now))
            bucket.left = min(float(key.rate.count), bucket.left + max(0.0, now - bucket.at) * share)
            bucket.at = now
            allowed = bucket.left >= 1
            if allowed:
                bucket.left -= 1
            headers |= _headers(
                "requests", key.rate.count, math.floor(bucket.left), (key.rate.count - bucket.left) / share
            )
            if not allowed:
                return Ruling(False, headers, (1 - bucket.left) / share, f"more than {key.rate} requests")
        return Ruling(True, headers)

    def charge(self, name: str, tokens: int) -> None:
        """Tokens that a request used."""
        if tokens:
            at = (name, _day(self.clock()))
            self._fresh[at] = self._fresh.get(at, 0) + tokens

    def flush(self) -> None:
        """Write what was used."""
        if self._fresh:
            self.keys.use(self._fresh)
            self._fresh = {}
            self._tokens.clear()

    def _spent(self, name: str, now: float) -> int:
        at = (name, _day(now))
        if at not in self._tokens:
            self._tokens = {k: v for k, v in self._tokens.items() if k[1] == at[1]}
            self._tokens[at] = self.keys.used(*at)
        return self._tokens[at] + self._fresh.get(at, 0)


def _day(now: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def _headers(what: str, limit: int, left: int, reset: float) -> dict[str, str]:
    return {f"x-ratelimit-limit-{what}": str(limit), f"x-ratelimit-remaining-{what}": str(left),
            f"x-ratelimit-reset-{what}": f"{max(0, math.ceil(reset))}s"}  # fmt: skip
