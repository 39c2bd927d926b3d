"""Fields that a server does not know: learned from its refusal, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class _Refusal(Protocol):
    code: int
    said: str


class Fields:
    """What to call a request's fields on one server.

    may_be: fields that some servers do not know, and what those call them; None: left out. Only what changes nothing
    that was asked for may be left out."""

    def __init__(self, may_be: Mapping[str, str | None]):
        self.may_be = dict(may_be)
        self.unknown: dict[str, str | None] = {}

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as this server takes it, as far as is known."""
        named = ((self.unknown.get(name, name), value) for name, value in body.items())
        return {name: value for name, value in named if name is not None}

    def learn(self, refusal: _Refusal, sent: Mapping[str, Any]) -> bool:
        """Whether a refusal of what was sent says that it should be put otherwise; if so, `put` does from now on."""
        if refusal.code not in (400, 422):
            return False
        for name, instead in self.may_be.items():
            if name in sent and (instead or name) in refusal.said:
                self.unknown[name] = instead
                return True
        return False
