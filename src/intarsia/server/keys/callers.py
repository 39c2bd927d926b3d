"""Whose request is it? The layer that looks at keys."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intarsia.server import routes_page
from intarsia.server.errors import ApiError, response_of
from intarsia.server.keys.limits import Limits
from intarsia.server.keys.store import Key, Keys
from intarsia.server.record import record_of
from intarsia.server.serving import CALLER

OPEN = frozenset({"/", "/openapi.json", "/health", "/healthz", "/readyz"}) | routes_page.OPEN
"""Routes for everybody: they tell nothing of anybody."""
ROUTES = (
    ("/v1/chat/", "chat"), ("/v1/completions", "chat"), ("/v1/score", "chat"), ("/v1/tokenize", "chat"),
    ("/v1/embeddings", "embed"), ("/v1/detect", "detect"), ("/v1/report", "detect"), ("/v1/profiles", "detect"),
    ("/v1/calibrate", "detect"), ("/v1/references", "detect"), ("/v1/label", "label"), ("/v1/explain", "explain"),
    ("/v1/diff", "explain"), ("/v1/knowledge/", "knowledge"), ("/v1/store/", "store"), ("/v1/techniques", "techniques"),
    ("/flows", "flows"), ("/mcp", "mcp"), ("/metrics", "metrics"), ("/admin/", "admin"),
)  # fmt: skip
ANY = ("/v1/models", "/v1/jobs")
"""Routes for every key: they show what it may use, and what it has begun."""


class Caller:
    """Whose request it is."""

    def __init__(self, key: Key):
        self.key, self.name = key, key.name

    def may_use(self, model: str) -> bool:
        """Whether the key is for a model."""
        return not self.key.models or model in self.key.models

    def check_model(self, model: str) -> None:
        """Raise `ApiError` (403) for a model that the key is not for."""
        if not self.may_use(model):
            raise ApiError(403, f"this key is not for that model, but for {', '.join(self.key.models)}", param="model")


def scope_of(path: str) -> str | None:
    """The scope that a route wants; None: any key. What is not known here wants `admin`."""
    if path.startswith(ANY):
        return None
    return next((scope for begin, scope in ROUTES if path.startswith(begin)), "admin")


class Callers:
    """Lets through who has a key for a route, as often as the key says."""

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits):
        self.app, self.keys, self.limits = app, keys, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {}

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and headers:
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        record = record_of(scope)
        try:
            key = self._key(scope)
            record.key = key.name
            wanted = scope_of(scope["path"])
            if wanted is not None and wanted not in key.scopes:
                raise ApiError(403, f"this key is not for such requests: it lacks the scope '{wanted}'", code="scope")
            ruling = self.limits.ask(key)
            headers |= ruling.headers
            if not ruling.allowed:
                after = {"retry-after": str(max(1, math.ceil(ruling.after)))}
                raise ApiError(429, ruling.why, code="rate_limit_exceeded", headers=after)
        except ApiError as error:
            record.error = error.code or ""
            await response_of(error)(scope, receive, told)
            return
        scope[CALLER] = Caller(key)
        try:
            await self.app(scope, receive, told)
        finally:
            self.limits.charge(key.name, record.usage.prompt + record.usage.completion)

    def _key(self, scope: Scope) -> Key:
        """The key of a request. What was given in its place is never said again."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        ask = {"www-authenticate": "Bearer"}
        if not given:
            said = "a key is wanted: Authorization: Bearer KEY (`intarsia keys add` makes one)"
            raise ApiError(401, said, code="no_api_key", headers=ask)
        kind, _, value = given[0].decode("latin-1").strip().partition(" ")
        key = self.keys.find(value.strip()) if len(given) == 1 and kind.lower() == "bearer" else None
        if key is None:
            raise ApiError(401, "this is no key of this server", code="invalid_api_key", headers=ask)
        return key


def flushing(limits: Limits, seconds: float = 1.0) -> Any:
    """A part of a server that writes used tokens every now and then, and at the end."""

    @contextlib.asynccontextmanager
    async def part() -> AsyncIterator[None]:
        async def often() -> None:
            while True:
                await asyncio.sleep(seconds)
                limits.flush()

        task = asyncio.ensure_future(often())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            limits.flush()

    return part
