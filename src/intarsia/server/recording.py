"""The outermost layer: each request gets an id and a record, and no failure reaches a client raw."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intarsia.server.errors import response_of
from intarsia.server.record import KEY, Record
from intarsia.server.redacting import redact
from intarsia.server.serving import Serving

LOG = logging.getLogger("intarsia.server")
IDS = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Recording:
    """Keeps a `Record` of each request in its scope, and gives it to the server's listeners when it is over."""

    def __init__(self, app: ASGIApp, serving: Serving):
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = {k: v.decode("latin-1") for k, v in scope["headers"] if k in (b"x-request-id", b"traceparent")}
        id_ = given.get(b"x-request-id", "")
        if not IDS.fullmatch(id_) or redact(id_) != id_:
            id_ = f"req_{secrets.token_hex(12)}"
        record = Record(id_, scope["method"], parent=given.get(b"traceparent", ""))
        record.keep_content = self.serving.keep_content
        scope[KEY] = record

        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", record.id.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, labelled)
        except Exception as error:
            record.error = type(error).__name__
            LOG.error("request %s failed: %s", record.id, _where(error))
            LOG.debug("request %s", record.id, exc_info=error)
            if not record.status:
                await response_of(error)(scope, receive, labelled)
        except asyncio.CancelledError:
            record.error = "cancelled"
            raise
        finally:
            record.seconds = time.perf_counter() - record.begun
            route = scope.get("route")
            record.route = getattr(route, "path_format", None) or getattr(route, "path", "") or "unknown"
            for listener in self.serving.listeners:
                listener(record)


def _where(error: BaseException) -> str:
    """The error's kind and place. Its message may hold what somebody said: only --debug shows it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
