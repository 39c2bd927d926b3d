"""Refusals: whatever a server says instead of an answer, in one line and without the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from intarsia.errors import IntarsiaError, first_line
from intarsia.models.remote.patience import may_pass, seconds


class Refused(IntarsiaError):
    """A server's refusal. code: of HTTP. after: seconds it asks to wait, 0 where it does not. said: its own words,
    without the key. retryable: whether the same request may be taken later."""

    def __init__(self, message: str, code: int, after: float = 0.0, said: str = ""):
        super().__init__(message)
        self.code, self.after, self.said = code, after, said
        self.retryable = may_pass(code)


class Unreachable(IntarsiaError):
    """No answer came, or only a part of one. retryable: whether the same request may be answered later."""

    def __init__(self, message: str, retryable: bool):
        super().__init__(message)
        self.retryable, self.after = retryable, 0.0


class Nonsense(IntarsiaError):
    """An answer that the API does not have."""


def refusal(
    server: str, code: int, reason: str, body: str, head: Mapping[str, str], key: str, key_variable: str
) -> Refused:
    """What a status of 300 or above means. body: what came with it; key: the one that was sent, or empty."""
    if code in (401, 403):  # what servers say here may hold a part of the key
        mend = f"refused the key in {key_variable}" if key else f"wants a key: set {key_variable}"
        return Refused(f"{server} {mend} ({code})", code)
    if 300 <= code < 400:
        return Refused(f"{server} sends elsewhere ({code}): give the address itself", code)
    said = without(words_of(body) or reason or "no reason given", key)
    after = seconds(head.get("Retry-After"))
    refused = Refused(f"{server}: {code} {first_line(ValueError(said), 200)}", code, after, said)
    refused.retryable &= "insufficient_quota" not in body  # OpenAI's 429 for an account that is empty, not busy
    return refused


def read_json(raw: bytes | str, server: str, end: str) -> Any:
    """An answer as JSON. Raises `Nonsense` where it is none."""
    try:
        return json.loads(raw)
    except ValueError:
        raise Nonsense(f"{server} answered no JSON: is {end} OpenAI's API there?") from None


def words_of(body: str) -> str:
    """What an error's body says: OpenAI's `error.message`, or what others put in its place."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if found.get(key)), body)
    return found if isinstance(found, str) else body


def without(said: str, key: str) -> str:
    """The same words, with dots in the key's place."""
    return said.replace(key, "...") if key else said
