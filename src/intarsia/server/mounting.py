"""`/mcp`, there from the beginning and made when it is first asked for, or a while after the models are there:
importing it takes most of a second, which the first answers would wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from intarsia.server.served import Served
from intarsia.server.serving import Serving

PATH = "/mcp"
LATER = 5.0
"""Seconds after the models are there."""


class Mount:
    """An ASGI application that stands in for another one, which is made meanwhile. Requests wait for it.

    - after: what should be done first, well or not."""

    def __init__(self, served: Served, after: Sequence[Future[Any]] = ()):
        self.served, self.after = served, list(after)
        self._made: asyncio.Future[Any] | None = None
        self._wanted = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._made is not None, "requests come after the server has begun"
        self._wanted.set()
        await (await asyncio.shield(self._made))(scope, receive, send)

    @asynccontextmanager
    async def part(self) -> AsyncIterator[None]:
        """Makes it, while the server goes on, and ends it."""
        self._made = asyncio.get_running_loop().create_future()
        over = asyncio.Event()
        work = asyncio.create_task(self._work(over))
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(work, return_exceptions=True)

    async def _work(self, over: asyncio.Event) -> None:
        assert self._made is not None
        ended = asyncio.create_task(over.wait())
        begun = [asyncio.create_task(wait) for wait in (self._wanted.wait(), self._later())]
        await asyncio.wait([*begun, ended], return_when=asyncio.FIRST_COMPLETED)
        for task in begun:
            task.cancel()
        if over.is_set():
            self._made.cancel()
            return
        try:
            server, app = await asyncio.to_thread(self._make)
        except Exception as error:
            self._made.set_exception(error)
            self._made.exception()  # whoever asks is told; nobody need ask
            return
        # Entered and left in one task, as its task group wants.
        async with server.session_manager.run():
            self._made.set_result(app)
            await ended

    async def _later(self) -> None:
        if self.after:
            await asyncio.gather(*map(asyncio.wrap_future, self.after), return_exceptions=True)
            await asyncio.sleep(LATER)

    def _make(self) -> tuple[Any, Any]:
        from intarsia.server import mcp

        made = mcp.server(self.served)
        return made, mcp.application(made)


def add(api: FastAPI, serving: Serving, mount: Mount) -> None:
    """Put it at `/mcp`."""
    api.router.routes.append(Route(PATH, endpoint=mount))
    serving.parts.append(mount.part)
