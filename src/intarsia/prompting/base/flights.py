"""Requests under way that are shared: who asks for the same gets the same answer as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from intarsia.prompting.base.replies import Delta

Source = Callable[[], AsyncIterator[Delta]]
Landed = Callable[[list[Delta]], Awaitable[None]]


class Flights:
    """The requests under way, by their keys. Each event loop has its own."""

    def __init__(self) -> None:
        self._flying: dict[tuple[asyncio.AbstractEventLoop, str], Flight] = {}

    def join(self, key: str, source: Source, landed: Landed) -> tuple[bool, AsyncIterator[Delta]]:
        """Whether this is the first, and the pieces of the answer from its beginning on.

        source: asks; called for the first only. landed: told all pieces of an answer that is whole. The request goes
        on as long as anybody waits for it; to stop waiting, close the iterator. All get the same error, if any."""
        place = (asyncio.get_running_loop(), key)
        if (flight := self._flying.get(place)) is not None:
            return False, flight.watched()
        flight = self._flying[place] = Flight(source, landed, lambda: self._flying.pop(place, None))
        return True, flight.watched()


class Flight:
    """One request. It is on its way when somebody first looks."""

    def __init__(self, source: Source, landed: Landed, over: Callable[[], object]):
        self._source, self._landed, self._over = source, landed, over
        self._came: list[Delta] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._fly())
        self._watching = 0

    async def _fly(self) -> None:
        try:
            async with aclosing(self._source()) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    self._came.append(delta)
                    self._tell()
            await self._landed(self._came)
        finally:
            self._over()
            self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def watched(self) -> AsyncIterator[Delta]:
        """The pieces, those that came before too."""
        self._watching += 1
        seen = 0
        try:
            while True:
                while seen < len(self._came):
                    seen += 1
                    yield self._came[seen - 1]
                if self._task.done():
                    self._task.result()  # raises what went wrong
                    return
                await self._more.wait()
        finally:
            self._watching -= 1
            if not self._watching and not self._task.done():
                self._over()  # whoever comes now begins anew
                self._task.cancel()
                await asyncio.wait([self._task])
