"""`generate_many`: many prompts, some at a time; `score_many`: the same choices behind many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from intarsia.errors import BadInput, IntarsiaError
from intarsia.progress import tell
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import PromptingError
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Reply, Sampling, Scores
from intarsia.prompting.base.wrapping import innermost, scored_each


class FailedPrompt(PromptingError):
    """One of many prompts failed, and the others were let go. number: which, from 0; error: why."""

    def __init__(self, number: int, error: Exception):
        super().__init__(f"prompt {number} (from 0): {error}")
        self.number, self.error = number, error
        self.exit_code = getattr(error, "exit_code", 1)


async def generate_many(
    backend: Backend, prompts: Sequence[Input], sampling: Sampling = Sampling(), *,
    constraint: Constraint | None = None, tools: Sequence[ToolSpec] = (), at_once: int = 8, keep_going: bool = False,
    task: str = "asking",
) -> list[Reply]:  # fmt: skip
    """An answer to each prompt, in their order.

    - sampling: of all; a seed is used for every prompt.
    - at_once: requests under way at a time: a local backend computes them together, a server shares them out.
    - keep_going: errors stand in the list in their prompts' places; else the first ends it all.
    - task: what progress is called.

    Raises `FailedPrompt` with the number of the prompt, caused by its error; `BadInput` for at_once below 1."""
    replies: list[Reply | Exception | None] = [None] * len(prompts)

    async def one(number: int) -> None:
        try:
            replies[number] = await backend.generate(prompts[number], sampling, constraint=constraint, tools=tools)
        except IntarsiaError as error:
            if not keep_going:
                raise FailedPrompt(number, error) from error
            replies[number] = error

    await each_or_failed(len(prompts), one, at_once, task)
    return replies  # type: ignore[return-value]


async def each_or_failed(count: int, one: Callable[[int], Awaitable[None]], at_once: int, task: str) -> None:
    """`each`, of what went wrong the `FailedPrompt` with the smallest number. Raises `BadInput` for at_once below 1."""
    if at_once < 1:
        raise BadInput(f"at_once is {at_once}: give at least 1")
    try:
        await each(count, one, at_once, task)
    except BaseExceptionGroup as failed:
        told = [error for error in failed.exceptions if isinstance(error, FailedPrompt)]
        raise min(told, key=lambda error: error.number) if told else failed.exceptions[0] from None


async def score_many(backend: Backend, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
    """As `Backend.score`, of each prompt: in one request where the backend has a `score_many` of its own, which servers
    need; else all are asked for at once. Each prompt is read by itself: the scores are the same."""
    if hasattr(innermost(backend), "score_many"):
        return await backend.score_many(prompts, choices)  # type: ignore[attr-defined]
    return await scored_each(backend, prompts, choices)


async def each(count: int, one: Callable[[int], Awaitable[None]], at_once: int, task: str) -> None:
    """Do `one` for the numbers below `count`, in their order, `at_once` at a time, with progress.

    Raises `BaseExceptionGroup` of what went wrong first; the others are cancelled then."""
    numbers, done = iter(range(count)), 0

    async def worker() -> None:
        nonlocal done
        for number in numbers:  # shared: each takes the next
            await one(number)
            done += 1
            tell(task, done, count)

    tell(task, 0, count)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(worker())
    finally:
        tell(task, done, count, finished=True)
