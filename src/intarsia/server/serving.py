"""What all routes of a server share: its models, its settings, and whether it is about to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request

from intarsia.server.errors import Stopping
from intarsia.server.record import Record, record_of
from intarsia.server.registry import Lease, Registry
from intarsia.server.streaming import STALL, EventStream

T = TypeVar("T")
Ended = Callable[[BaseException | None], Awaitable[None]]
CALLER = "intarsia.caller"
"""Where a request's scope says whose it is."""


@dataclass
class Serving:
    """The state of a server.

    - draining: nothing new is begun. cut: what is still running ends now.
    - stall: seconds that a stream may be left unread.
    - listeners: are given each request's record when it is over.
    - parts: entered when the server starts, left when it ends.
    - keep_content: whether records hold what was asked and answered. stop: ends the server; failed: why it had to end.
    - more: what routes beside OpenAI's serve, by their names."""

    registry: Registry = field(default_factory=Registry)
    stall: float = STALL
    draining: bool = False
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: list[Callable[[Record], None]] = field(default_factory=list)
    parts: list[Callable[[], AbstractAsyncContextManager[Any]]] = field(default_factory=list)
    keep_content: bool = False
    stop: Callable[[], None] = lambda: None
    failed: Exception | None = None
    more: dict[str, Any] = field(default_factory=dict)

    async def take(self, request: Request, model: str, operation: str) -> Lease:
        """The model that a request names, held until released. Raises `ApiError`: unknown, or not for this key."""
        record = record_of(request)
        record.operation = operation
        caller = request.scope.get(CALLER)
        if caller is not None:
            caller.check_model(model)
        lease = await self.until_cut(self.registry.take(model))
        record.model = model
        return lease

    async def until_cut(self, work: Awaitable[T]) -> T:
        """What `work` gives. Raises `Stopping` where the server must end before."""
        task, cut = asyncio.ensure_future(work), asyncio.ensure_future(self.cut.wait())
        try:
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopping
            return task.result()
        finally:
            for one in (task, cut):
                one.cancel()
            await asyncio.gather(task, cut, return_exceptions=True)

    def events(self, events: AsyncIterator[bytes], ended: Ended | None = None) -> EventStream:
        """A response of events that ends when the server must."""
        return EventStream(events, ended=ended, cut=self.cut, stall=self.stall)
