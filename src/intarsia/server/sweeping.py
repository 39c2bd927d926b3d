"""The garbage collector while a server starts.

Libraries and weights are half a million objects that stay. Looking through them again and again takes a quarter of the
time that importing takes, and finds next to nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

_left_out = False  # by `after`, in this process


def hold() -> None:
    """Look through nothing until what is loaded is there (`after`)."""
    gc.disable()


def after(loading: Sequence[Future[Any]]) -> Callable[[], AbstractAsyncContextManager[None]]:
    """A part of a server: once all that loads is there, well or not, what is in memory is left out of all later looks,
    which are then short, and the collector goes on."""

    @asynccontextmanager
    async def part() -> AsyncIterator[None]:
        async def loaded() -> None:
            await asyncio.gather(*map(asyncio.wrap_future, loading), return_exceptions=True)
            _leave_out()
            gc.enable()

        task = asyncio.ensure_future(loaded())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            gc.enable()

    return part


def let_go() -> None:
    """Give back the memory of a model that went: its network is a cycle, and one that was there from the beginning
    is in what `after` left out. Takes some tenths of a second."""
    if _left_out:
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def _leave_out() -> None:
    global _left_out
    gc.freeze()
    _left_out = True
