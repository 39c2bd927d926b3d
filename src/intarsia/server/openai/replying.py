"""From what is asked to a response, whole or as events: what chats and texts have in common."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from intarsia.prompting.base import Delta, Reply, Usage
from intarsia.server.openai.answers import usage_of
from intarsia.server.openai.generating import or_gone, pieces, whole
from intarsia.server.openai.reading import Asked
from intarsia.server.record import Record, record_of
from intarsia.server.registry import Lease
from intarsia.server.serving import Serving
from intarsia.server.streaming import DONE, event


@dataclass
class Form:
    """How an API says it. head: of the whole document; begun: of each event. choice: an answer, whole; opening: what
    the events of an answer begin with; part: a piece of it; n: answers to one prompt, whose tokens count once."""

    head: dict[str, Any]
    begun: dict[str, Any]
    choice: Callable[[int, Reply], dict[str, Any]]
    opening: Callable[[int], dict[str, Any] | None]
    part: Callable[[int, Delta], list[dict[str, Any]]]
    n: int = 1


async def reply(
    serving: Serving, request: Request, lease: Lease, asked: Sequence[Asked], form: Form, stream: bool, usage: bool
) -> Response:
    """The response. The lease is released when it is over. usage: whether events end with the tokens' number."""
    record = record_of(request)
    record.stream = stream
    if record.keep_content:
        record.asked = [one.prompt for one in asked]
    if stream:
        events = _events(lease, asked, form, record, usage)
        try:
            # What cannot be answered at all has a status of its own: the response begins with the first event.
            first = await or_gone(request, anext(events))
        except BaseException:
            with contextlib.suppress(Exception):
                await events.aclose()
            lease.release()
            raise

        async def ended(error: BaseException | None) -> None:
            lease.release()
            record.error = getattr(error, "code", None) or (type(error).__name__ if error else "")

        return serving.events(_chained(first, events), ended)
    try:
        replies = await or_gone(request, serving.until_cut(whole(lease.backend, asked)))
    finally:
        lease.release()
    record.usage = total([r.usage for r in replies], form.n)
    record.finish = [r.finish for r in replies]
    if record.keep_content:
        record.answered = [r.text for r in replies]
    rows = [form.choice(i, r) for i, r in enumerate(replies)]
    return JSONResponse({**form.head, "choices": rows, "usage": usage_of(record.usage)})


def total(usages: Sequence[Usage], n: int) -> Usage:
    """Tokens of all answers together; a prompt that is answered `n` times counts once."""
    out = Usage(calls=0)
    for i, one in enumerate(usages):
        first = i % n == 0
        out = out + Usage(
            one.prompt if first else 0, one.completion, one.cached if first else 0, one.forced, one.calls, one.cost
        )
    return out


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for one in rest:
            yield one
    finally:
        await rest.aclose()  # type: ignore[attr-defined]


async def _events(
    lease: Lease, asked: Sequence[Asked], form: Form, record: Record, usage: bool
) -> AsyncIterator[bytes]:
    usages: dict[int, Usage] = {}
    made = [0] * len(asked)
    opened: set[int] = set()
    said: dict[int, list[str]] = {}
    empty = {"usage": None} if usage else {}
    try:
        async with contextlib.aclosing(pieces(lease.backend, asked)) as deltas:
            async for number, delta in deltas:
                record.token()
                rows = []
                if number not in opened:
                    opened.add(number)
                    if (row := form.opening(number)) is not None:
                        rows.append(row)
                rows += form.part(number, delta)
                made[number] += len(delta.tokens) or bool(delta.text)
                if record.keep_content:
                    said.setdefault(number, []).append(delta.text)
                if delta.usage is not None:
                    usages[number] = delta.usage
                if delta.finish is not None:
                    record.finish.append(delta.finish)
                if rows:
                    yield b"".join(event({**form.begun, "choices": [row], **empty}) for row in rows)
    finally:
        # Who leaves early has used what was read and made until then.
        for number in opened - usages.keys():
            usages[number] = Usage(lease.backend.count(asked[number].prompt, asked[number].tools), made[number])
        record.usage = total([usages.get(i, Usage()) for i in range(len(asked))], form.n)
        if record.keep_content:
            record.answered = ["".join(said.get(i, [])) for i in range(len(asked))]
    if usage:
        yield event({**form.begun, "choices": [], "usage": usage_of(record.usage)})
    yield DONE
