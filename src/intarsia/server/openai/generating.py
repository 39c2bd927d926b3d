"""Answers of a backend while a client waits: several at once, cancelled when nobody wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

from fastapi import Request

from intarsia.prompting.base import Backend, Delta, Reply
from intarsia.server.errors import ClientGone
from intarsia.server.openai.reading import Asked, calls_of

T = TypeVar("T")
AHEAD = 32  # deltas of several streams that wait for a slow reader


async def or_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled, and `ClientGone` raised, as soon as the client hangs up."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, watch):
            if not one.done():
                one.cancel()
                with contextlib.suppress(BaseException):
                    await one


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def whole(backend: Backend, asked: Sequence[Asked]) -> list[Reply]:
    """All answers. One that fails ends the others."""
    if len(asked) == 1:
        return [await _one(backend, asked[0])]
    tasks = [asyncio.ensure_future(_one(backend, one)) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(backend: Backend, asked: Asked) -> Reply:
    return calls_of(
        asked, await backend.generate(asked.prompt, asked.sampling, constraint=asked.constraint, tools=asked.tools)
    )


async def pieces(backend: Backend, asked: Sequence[Asked]) -> AsyncIterator[tuple[int, Delta]]:
    """Pieces of all answers as they come, each with the number of its answer. Closing it cancels them all."""
    if len(asked) == 1:
        async with contextlib.aclosing(_stream(backend, asked[0])) as deltas:
            async for delta in deltas:
                yield 0, delta
        return
    ready: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue(AHEAD)

    async def follow(number: int) -> None:
        try:
            async with contextlib.aclosing(_stream(backend, asked[number])) as deltas:
                async for delta in deltas:
                    await ready.put((number, delta))
        except Exception as error:
            await ready.put((number, error))
        else:
            await ready.put((number, None))

    tasks = [asyncio.ensure_future(follow(i)) for i in range(len(asked))]
    left = len(tasks)
    try:
        while left:
            number, got = await ready.get()
            if isinstance(got, BaseException):
                raise got
            if got is None:
                left -= 1
            else:
                yield number, got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(backend: Backend, asked: Asked) -> AsyncIterator[Delta]:
    deltas = backend.stream(asked.prompt, asked.sampling, constraint=asked.constraint, tools=asked.tools)
    async with contextlib.aclosing(deltas):  # type: ignore[type-var]
        if not asked.forced and not asked.single:
            async for delta in deltas:
                yield delta
            return
        # The text is a call, and a call is told whole: nothing is said before it is there.
        text, tokens, logprobs = "", (), ()
        async for delta in deltas:
            if asked.forced:
                text, tokens, logprobs = text + delta.text, tokens + delta.tokens, logprobs + delta.logprobs
                if delta.finish is None:
                    continue
                delta = Delta(text, tokens, logprobs, delta.finish, delta.usage, delta.calls)
            if delta.finish is None:
                yield delta
                continue
            read = calls_of(asked, Reply(delta.text, delta.finish, delta.tokens, delta.logprobs, delta.calls))
            yield Delta(read.text, read.tokens, read.logprobs, read.finish, delta.usage, read.calls)
