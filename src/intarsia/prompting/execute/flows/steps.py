"""`step`: one thing a flow does, done once: recorded, and taken from the record where the flow is gone on with."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, overload

from intarsia.errors import BadInput
from intarsia.prompting.execute.flows.keys import bound, named, source_hash
from intarsia.prompting.tracing import step as recording
from intarsia.prompting.tracing import tracing

P = ParamSpec("P")
T = TypeVar("T")


@overload
def step(name: Callable[P, T]) -> Callable[P, T]: ...
@overload
def step(name: str, function: Callable[..., Awaitable[T]], *given: Any, **named_: Any) -> Awaitable[T]: ...
@overload
def step(name: str, function: Callable[..., T], *given: Any, **named_: Any) -> Awaitable[T]: ...
def step(name: Any, function: Any = None, *given: Any, **named_: Any) -> Any:
    """`await step("name", function, *arguments)`, or `@step` before a function, each of whose calls is one then.

    The step is found again by its name, its arguments, the source of the function and how often the same was done
    before at the same place; what it gave is taken then, and the function is not called. Arguments are plain data,
    dataclasses, pydantic models...; backends, stores and prompts count by their fingerprint, hash or path.

    By its name, a plain function runs in a thread of its own, so that others go on; under `@step`, where it is called.
    Outside of a flow nothing is recorded. Raises `BadInput` for arguments that cannot be kept, with their path."""
    if callable(name) and function is None:
        return _decorated(name)
    if not isinstance(name, str) or not callable(function):
        raise BadInput('a step is `await step("name", function, *arguments)`, or `@step` before a function')
    return once(name, function, given, named_)


async def once(name: str, function: Callable[..., Any], given: tuple[Any, ...], named_: dict[str, Any]) -> Any:
    """What a function gives, as a step."""
    if not tracing():
        return await _called(function, given, named_)
    with recording("step", name, bound(function, given, named_), code=source_hash(function)) as s:
        if not s.replayed:
            s.output = await _called(function, given, named_)
        return s.output


async def _called(function: Callable[..., Any], given: tuple[Any, ...], named_: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(*given, **named_)
    made = await asyncio.to_thread(function, *given, **named_)
    return await made if inspect.isawaitable(made) else made


def is_step(function: Any) -> bool:
    """Whether calls of a function are steps already."""
    return getattr(function, "__intarsia_step__", False)


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    name = named(function)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*given: Any, **named_: Any) -> Any:
            return await once(name, function, given, named_)

        made: Any = asynchronous
    else:

        @functools.wraps(function)
        def synchronous(*given: Any, **named_: Any) -> Any:
            if not tracing():
                return function(*given, **named_)
            with recording("step", name, bound(function, given, named_), code=source_hash(function)) as s:
                if not s.replayed:
                    s.output = function(*given, **named_)
                return s.output

        made = synchronous
    made.__intarsia_step__ = True
    return made
