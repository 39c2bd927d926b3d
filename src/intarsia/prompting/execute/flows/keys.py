"""What a step's key is made of: the values it is given, and the source of what runs."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import CodeType
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.tracing import NotSerialisable, pack


@dataclass(frozen=True)
class Resource:
    """What stands in a trace for a thing that cannot be kept: a backend, a store, a prompt, a function.

    - kind: its class. name: how it is called. mark: equal for equal things: a fingerprint, a hash, a path, a source."""

    kind: str
    name: str
    mark: str


def kept(value: Any, path: str) -> Any:
    """A value as it is kept: itself where that can be, else its `Resource`.

    Raises `NotSerialisable` for what is neither data nor tells itself apart by a `fingerprint`, `hash` or `path`."""
    if _is_function(value) or isinstance(value, functools.partial):
        return Resource("function", named(value), source_hash(value))
    if (found := _marked(value, "fingerprint")) is not None:
        return found
    try:
        pack(value, path)
    except NotSerialisable:
        if isinstance(value, list | tuple):
            return [kept(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, Mapping):
            return {key: kept(item, f"{path}.{key}") for key, item in value.items()}
        if (found := _marked(value, "hash", "version", "path")) is None:
            raise
        return found
    return value


def _marked(value: Any, *marks: str) -> Resource | None:
    if isinstance(value, type):
        return None
    found = (getattr(value, mark, None) for mark in marks)
    mark = next((str(m) for m in found if isinstance(m, str | PurePath)), None)
    return None if mark is None else Resource(type(value).__qualname__, str(getattr(value, "name", "")), mark)


def _is_function(value: Any) -> bool:
    """A function, a method, or one that something (`@flow`) is wrapped around."""
    return inspect.isroutine(value) or (callable(value) and hasattr(value, "__wrapped__"))


def bound(function: Callable[..., Any], given: tuple[Any, ...], named_: Mapping[str, Any]) -> dict[str, Any]:
    """What a call gives a function, by the names of its parameters, as it is kept. Defaults that are not given are part
    of the function's source."""
    try:
        arguments = inspect.signature(function).bind(*given, **named_).arguments
    except (TypeError, ValueError) as error:
        raise BadInput(f"{named(function)}: {error}") from None
    return {name: kept(value, name) for name, value in arguments.items()}


def named(function: Any) -> str:
    """How people call a function."""
    if isinstance(function, functools.partial):
        return named(function.func)
    return getattr(function, "__name__", type(function).__name__)


def source_hash(function: Any) -> str:
    """Equal for a function whose source, and the data it closes over, is the same. What it calls is not looked at;
    what it closes over and cannot be kept (a connection, a lock) counts by its class."""
    if isinstance(function, functools.partial):
        inner = {"args": list(function.args), "named": function.keywords}
        return _hash([source_hash(function.func), pack(kept(inner, f"partial of {named(function)}"))])
    function = inspect.unwrap(function)
    if inspect.ismethod(function):
        return _hash([source_hash(function.__func__), _held(function.__self__)])
    code = getattr(function, "__code__", None)
    if code is None:  # built in, or an object that can be called
        owner = type(function)
        if inspect.isroutine(function) or isinstance(function, type):
            owned = getattr(function, "__self__", None)
            held = None if owned is None or inspect.ismodule(owned) else _held(owned)
            return _hash([getattr(function, "__module__", ""), getattr(function, "__qualname__", ""), held])
        return _hash([source_hash(owner.__call__), _held(getattr(function, "__dict__", {}))])
    try:
        told = textwrap.dedent(inspect.getsource(function))
        told = told[told.index("def ") :] if function.__name__ != "<lambda>" and "def " in told else _of_code(code)
    except (OSError, TypeError):
        told = _of_code(code)
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    over = {name: _inside(cell) for name, cell in cells}
    return _hash([told, over])


def _inside(cell: Any) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # not filled yet: a function that names itself
        return None
    if _is_function(value) and not inspect.ismethod(value):
        return getattr(value, "__qualname__", "")  # by name: functions may close over one another in a ring
    return _held(value)


def _held(value: Any) -> Any:
    try:
        return pack(kept(value, "value"))
    except NotSerialisable:
        return type(value).__qualname__


def _of_code(code: CodeType) -> str:
    """A function's code where there is no source of its own: a lambda shares its line with others."""
    inner = [_of_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code.hex(), inner, code.co_names, code.co_varnames[: code.co_argcount]))


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()[:16]
