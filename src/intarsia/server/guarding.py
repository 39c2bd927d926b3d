"""What stands before all routes: whose address a request believes in, how large it may be and how slow, and that a
server which is about to end takes nothing new. Plain ASGI, each a layer around the next."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intarsia.server.errors import ApiError, Stopping, response_of

BODY = 8 * 2**20
"""Bytes of a body."""
PATIENCE = 30.0
"""Seconds in which a body must have come."""
STATE = ("/healthz", "/readyz", "/health", "/metrics")
"""Routes that tell of the server itself; they are answered to its end."""


class Hosts:
    """Only requests that call this server by a name of its own: a page of someone else's whose name was bent to point
    here (DNS rebinding) gets nothing. allowed: names and addresses, without ports."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]):
        self.app, self.allowed = app, {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = _header(scope, b"host")
            if host_of(given) not in self.allowed:
                said = "this server does not go by the name in the Host header: --allow-host NAME would let it"
                await response_of(ApiError(403, said, code="wrong_host"))(scope, receive, send)
                return
        await self.app(scope, receive, send)


def host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Ending:
    """While the server is about to end, new requests are told to come again, and connections are closed after their
    answers. `ending` says whether it is so."""

    def __init__(self, app: ASGIApp, ending: Callable[[], bool]):
        self.app, self.ending = app, ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.ending():
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        if self.ending() and scope["path"] not in STATE:
            await refuse(receive, send, Stopping())
            return
        await self.app(scope, receive, closing)


class Bodies:
    """Bodies that are too large or come too slowly end the request: 413 before all of it is read, 408.

    most: bytes; patience: seconds for the whole body."""

    def __init__(self, app: ASGIApp, most: int = BODY, patience: float = PATIENCE):
        self.app, self.most, self.patience = app, most, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = _header(scope, b"content-length")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self.most):
            await refuse(receive, send, self._large(), self.most)
            return
        taken, whole, started = 0, False, False
        until = asyncio.get_running_loop().time() + self.patience

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                said = f"the body did not come within {self.patience:g} seconds"
                raise _Refused(ApiError(408, said, code="body_timeout")) from None
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if taken > self.most:
                    raise _Refused(self._large())
            return message

        async def noticing(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, limited, noticing)
        except _Refused as refused:
            if not started:
                await refuse(receive, send, refused.error, self.most)

    def _large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self.most:,} bytes", code="body_too_large")


async def refuse(receive: Receive, send: Send, error: ApiError, most: int = BODY) -> None:
    """Tell of it and close. What is on its way is read a little longer, `most` bytes times four: closing upon unread
    bytes is a reset, to which the answer would be lost."""
    answer = response_of(error)
    answer.headers["connection"] = "close"
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            dropped = 0
            while dropped < 4 * most:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    break
                dropped += len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Refused(BaseException):
    """Goes through whatever reads a body: it is no error that a route may turn into its own."""

    def __init__(self, error: ApiError):
        self.error = error


class Heads:
    """HEAD is GET without a body; OPTIONS says what a route takes."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        if scope["type"] != "http" or method not in ("HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return

        async def bare(message: Message) -> None:
            if message["type"] == "http.response.start":
                if method == "OPTIONS" and message["status"] == 405:
                    message = {**message, "status": 204, "headers": [h for h in message["headers"] if h[0] == b"allow"]}
                elif method == "OPTIONS":
                    message = {**message, "headers": [h for h in message["headers"] if h[0] != b"content-length"]}
            else:
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"} if method == "HEAD" else scope, receive, bare)


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
