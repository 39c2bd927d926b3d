"""Server-sent events that end in order: when the client goes, when it stops reading, when the server must stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from intarsia.server.errors import ApiError, Stopping, as_api_error, body_of

ABORT = "intarsia.abort"
"""The extension of a scope that drops its connection at once."""
STALL = 30.0
"""Seconds that a client may leave a stream unread. Its answer is given up then: nothing is kept for it."""


def event(value: Any) -> bytes:
    """One event with a JSON value."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """A response of events as they come.

    - events: bytes, each some whole events. It is closed in any case, which cancels the work behind it.
    - ended: called at the very end, with the error that ended it or None.
    - cut: once set, the stream ends with an error event: the server stops."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], *, ended: Callable[[BaseException | None], Awaitable[None]] | None = None,
        cut: asyncio.Event | None = None, stall: float = STALL,
    ):  # fmt: skip
        self.events, self.ended, self.cut, self.stall = events, ended, cut, stall
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        over: BaseException | None = None
        work = asyncio.ensure_future(self._send(send))
        stops = [asyncio.ensure_future(_hung_up(receive))]
        if self.cut is not None:
            stops.append(asyncio.ensure_future(self.cut.wait()))
        try:
            await asyncio.wait({work, *stops}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                over = work.result()
                if isinstance(over, Unread) and (abort := scope.get("extensions", {}).get(ABORT)):
                    abort()  # what waits in the connection's buffers is let go with it
                    await asyncio.sleep(0.01)
            else:
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work
                over = ApiError(499, "the client went away", code="client_gone")
                if self.cut is not None and self.cut.is_set():
                    over = Stopping()
                    await self._last(send, event(body_of(over)))
        except BaseException as error:
            over = over or error
            raise
        finally:
            for task in (work, *stops):
                task.cancel()
            await asyncio.gather(work, *stops, return_exceptions=True)
            await self.events.aclose()  # type: ignore[attr-defined]
            if self.ended is not None:
                await self.ended(over)

    async def _send(self, send: Send) -> BaseException | None:
        """All events; the error that ended them early, which the client has been told of."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for piece in self.events:
                try:
                    async with asyncio.timeout(self.stall):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    return Unread()
        except Exception as error:
            await self._last(send, event(body_of(as_api_error(error))))
            return error
        await self._last(send, b"")
        return None

    async def _last(self, send: Send, body: bytes) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(min(self.stall, 2.0)):
                await send({"type": "http.response.body", "body": body, "more_body": False})


class Unread(ApiError):
    """A client that left its stream unread for too long."""

    def __init__(self) -> None:
        super().__init__(499, "the client does not read its stream", code="client_stalled")


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
