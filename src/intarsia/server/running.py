"""A server process from its first connection to its last answer.

`serve(app, serving, listener)` runs until SIGTERM or SIGINT. Then: `/readyz` says 503; connections that still come, and
requests on connections that are open, are told to come again (503, Retry-After); then the socket is closed without a
reset connection (`listening`); what is running is finished within
`grace` seconds, and what is not by then ends with an error of its own. Nothing that was accepted is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from intarsia.server.errors import ApiError, body_of
from intarsia.server.listening import BACKLOG, deafen, waiting
from intarsia.server.serving import Serving
from intarsia.server.streaming import ABORT

GRACE = 30.0
"""Seconds that requests have to end once the server must."""
LINGER = 0.4
"""Seconds that a server which must end still tells newcomers so."""
QUEUE = 0.05
"""Seconds that the listening socket stays open once it lets nobody in any more."""
PARTING = 1.5
"""Seconds that connections without a request stay open once nothing runs any more: a request may be on its way."""
HEADERS = 10.0
"""Seconds in which the head of a request must have come."""


class Protocol(H11Protocol):
    """HTTP/1.1 with an end to heads that do not come, and errors in the house's form."""

    head_patience = HEADERS

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        inner = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[ABORT] = self.transport.abort
            await inner(scope, receive, send)

        self.app = app
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._head_came()
        elif self.conn.trailing_data[0] and self._head is None:
            self._await_head()

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is here that has no answer yet."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.conn.trailing_data[0]

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.head_patience, self._too_slow)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._head = None
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            said = f"the head of the request did not come within {self.head_patience:g} seconds"
            self._refuse(ApiError(408, said, code="head_timeout"))

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(ApiError(400, msg.rstrip(".").lower(), code="invalid_http"))

    def _refuse(self, error: ApiError) -> None:
        body = json.dumps(body_of(error)).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        with contextlib.suppress(h11.LocalProtocolError):
            self.transport.write(self.conn.send(h11.Response(status_code=error.status, headers=headers)) or b"")
            self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
            self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn with the end described above."""

    def __init__(self, config: uvicorn.Config, serving: Serving, grace: float = GRACE, linger: float = LINGER):
        super().__init__(config)
        self.serving, self.grace, self.linger = serving, grace, linger
        serving.stop = self._stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = self.serving.draining = True

    def _stop(self) -> None:
        self.should_exit = self.serving.draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is running, tell the others."""
        self.serving.draining = True
        await asyncio.sleep(self.linger)
        listeners = [one for server in self.servers for one in server.sockets]
        for one in listeners:
            deafen(one)
        # One whose handshake was under way is in the queue a moment later.
        await asyncio.sleep(QUEUE)
        await self._until(lambda: not any(map(waiting, listeners)), asyncio.get_running_loop().time() + self.linger)
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        deadline = asyncio.get_running_loop().time() + self.grace
        await self._until(lambda: not self._busy(), deadline)
        if self._busy():
            self.serving.cut.set()
            await self._until(lambda: not self._busy(), asyncio.get_running_loop().time() + 3.0)
        await self._until(lambda: not self.server_state.connections, asyncio.get_running_loop().time() + PARTING)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._until(lambda: not self.server_state.connections, asyncio.get_running_loop().time() + 0.5)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        if not self.force_exit:
            await self.lifespan.shutdown()

    def _busy(self) -> bool:
        state = self.server_state
        return bool(state.tasks) or any(not getattr(c, "idle", True) for c in state.connections)

    async def _until(self, true: Callable[[], bool], deadline: float) -> None:
        while not true() and not self.force_exit and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)


def serve(
    app: Any, serving: Serving, listener: socket.socket, *, grace: float = GRACE, head_patience: float = HEADERS,
    log_level: str = "warning",
) -> None:  # fmt: skip
    """Serve until told to stop, and end as described above."""
    kind = type("Protocol", (Protocol,), {"head_patience": head_patience})
    config = uvicorn.Config(
        app, http=kind, ws="none", log_level=log_level, access_log=False, server_header=False, timeout_keep_alive=75,
        backlog=BACKLOG, lifespan="on",
    )  # fmt: skip
    Server(config, serving, grace).run(sockets=[listener])
