"""Common shapes of a flow as plain functions: many at once, again, no longer than."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from intarsia.errors import BadInput, first_line
from intarsia.models.remote.patience import waiting
from intarsia.prompting.base.errors import PromptingError
from intarsia.prompting.base.many import each
from intarsia.prompting.execute.flows.approving import Waiting
from intarsia.prompting.execute.flows.keys import named
from intarsia.prompting.execute.flows.steps import _called, is_step, once
from intarsia.prompting.tracing import note, place_of

T = TypeVar("T")
R = TypeVar("R")


class TimedOut(PromptingError):
    """Something took longer than it may."""


@dataclass(frozen=True)
class Failed:
    """An item that failed, in its result's place. place: file:line of the error."""

    number: int
    item: Any
    error: BaseException
    place: str


class SomeFailed(PromptingError):
    """Some of many items failed; the others are done, and recorded. failures: which, in their order."""

    def __init__(self, failures: list[Failed], of: int):
        told = "; ".join(f"[{f.number}] {type(f.error).__name__}: {first_line(f.error, 120)} ({f.place})"
                         for f in failures[:3])  # fmt: skip
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        super().__init__(f"{len(failures)} of {of} items failed: {told}{more}")
        self.failures = failures


@overload
async def map_many(
    function: Callable[[T], Awaitable[R]], items: Iterable[T], at_once: int = 8, *, name: str = "",
    errors: Literal["raise"] = "raise",
) -> list[R]: ...  # fmt: skip
@overload
async def map_many(
    function: Callable[[T], Awaitable[R]], items: Iterable[T], at_once: int = 8, *, name: str = "",
    errors: Literal["collect"],
) -> list[R | Failed]: ...  # fmt: skip
async def map_many(
    function: Any, items: Iterable[Any], at_once: int = 8, *, name: str = "", errors: str = "raise"
) -> list[Any]:
    """`function` of each item, `at_once` at a time, results in the order of the items. Each is a step.

    - function: async, or plain (then in threads). name: of the steps and the progress; default: the function's.
    - errors: every item is tried either way. `raise`: `SomeFailed` at the end; `collect`: a `Failed` in its place.

    Where a person is waited for, the others go on to their end, then `Waiting` is raised."""
    if at_once < 1:
        raise BadInput(f"at_once is {at_once}: at least one must be under way")
    if errors not in ("raise", "collect"):
        raise BadInput(f"errors is {errors!r}: give 'raise' or 'collect'")
    every = list(items)
    task = name or named(function)
    results: list[Any] = [None] * len(every)
    waits: dict[int, Waiting] = {}

    async def one(number: int) -> None:
        item = every[number]
        try:
            if is_step(function):
                results[number] = await _called(function, (item,), {})
            else:
                results[number] = await once(task, function, (item,), {})
        except Waiting as wait:
            waits[number] = wait
        except Exception as error:
            results[number] = Failed(number, item, error, place_of(error))

    await each(len(every), one, at_once, task)
    if waits:
        raise waits[min(waits)]
    failures = [r for r in results if isinstance(r, Failed)]
    if failures and errors == "raise":
        raise SomeFailed(failures, len(every)) from failures[0].error
    return results


async def retry(
    name: str, function: Callable[..., Any], *given: Any, times: int = 3, pause: float = 1.0,
    on: type[Exception] | tuple[type[Exception], ...] | None = None, **named_: Any,
) -> Any:  # fmt: skip
    """A step that is tried again: it is done when one try is.

    - times: tries at most. pause: seconds before the second, doubled every time after, and up to as much by chance.
    - on: kinds of errors that are worth another try; default: those that say so by `retryable`, and `TimedOut`."""
    if times < 1:
        raise BadInput(f"times is {times}: give at least one try")

    async def tries(*given: Any, **named_: Any) -> Any:
        for number in range(times):
            try:
                return await _called(function, given, named_)
            except Exception as error:
                passing = getattr(error, "retryable", False) or isinstance(error, TimedOut)
                worth = isinstance(error, on) if on else passing
                if not worth or isinstance(error, Waiting) or number + 1 == times:
                    raise
                wait = waiting(number, pause, getattr(error, "after", None) or 0.0) + random.uniform(0, pause)
                note("tried again", {"try": number + 1, "error": f"{type(error).__name__}: {first_line(error)}"})
                await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    tries.__wrapped__ = function  # type: ignore[attr-defined]  # its source and parameters are what counts
    return await once(name, tries, given, named_)


async def within(seconds: float, work: Awaitable[T], what: str = "it") -> T:
    """What `work` gives, if that comes in time. Raises `TimedOut`, and the work is cancelled."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():  # the work's own
            raise
        raise TimedOut(f"{what} took longer than {seconds:g} s: give it more time, or less to do") from None
