"""`wait`: async code from plain code."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from intarsia.errors import BadInput

T = TypeVar("T")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0  # whose thread runs it: a forked process has none


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives: `reply = wait(backend.generate("..."))`, in a script, a notebook or a worker thread.

    It runs in one event loop that all calls share, in a thread of its own, so that a backend's connections last from
    one call to the next; traces and progress go where the caller's go. Interrupted, it cancels what it waits for.

    Raises `BadInput` inside code that it runs itself, which has to `await`."""
    loop = _shared_loop()
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        coroutine.close()
        raise BadInput("wait() was called inside async code that wait() runs: write await instead")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _shared_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid
    with _lock:
        if _loop is None or _loop.is_closed() or _pid != os.getpid():
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="intarsia-wait", daemon=True).start()
        return _loop
