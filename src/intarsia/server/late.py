"""Something that is opened in a thread while the server begins, and waited for by whoever needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Late(Generic[T]):
    """What `opened` gives, some time. Threads call it; coroutines await `get`. Both raise what opening raised."""

    def __init__(self, opened: Callable[[], T], what: str):
        self._future: Future[T] = Future()

        def work() -> None:
            try:
                self._future.set_result(opened())
            except BaseException as error:
                self._future.set_exception(error)

        threading.Thread(target=work, name=f"open {what}", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it is there, or will never be."""
        return self._future.done()

    def __call__(self) -> T:
        """It, once it is there. Blocks."""
        return self._future.result()

    async def get(self) -> T:
        """It, once it is there."""
        return await asyncio.shield(asyncio.wrap_future(self._future))
