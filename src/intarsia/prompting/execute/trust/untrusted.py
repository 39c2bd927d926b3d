"""`Untrusted`: text from outside, and what is made of it.

A text's origin must not get lost while it is put together. It is kept in the string itself, as character spans: exact
where texts are joined or cut, the whole of it wherever a method, a filter or a model made something new of it. What
cannot be followed: which branch an `if` takes, and Python's own f-strings and `"".join` outside of a template (use
`joined`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from intarsia.errors import BadInput

T = TypeVar("T")
Spans = tuple[tuple[int, int], ...]


class Untrusted(str):
    """A string of which some came from outside: documents, tools, users where that is asked for.

    - spans: (start, end) of the characters from outside, in order; without: all of it. A new one keeps those of a text
      that has some."""

    spans: Spans

    def __new__(cls, text: str = "", spans: Iterable[tuple[int, int]] | None = None) -> Untrusted:
        made = super().__new__(cls, plain(text))
        if spans is None:
            spans = text.spans if isinstance(text, Untrusted) else ((0, len(text)),)
        made.spans = tuple((int(start), int(end)) for start, end in spans)
        return made

    def __str__(self) -> str:
        return self

    def __format__(self, form: str) -> str:
        return Untrusted(format(plain(self), form)) if form else self

    def __add__(self, other: str) -> str:
        return joined((self, other))

    def __radd__(self, other: str) -> str:
        return joined((other, self))

    def __getitem__(self, key: Any) -> Untrusted:
        found = plain(self)[key]
        if not isinstance(key, slice) or key.step not in (None, 1):
            return Untrusted(found)
        start, end, _ = key.indices(len(self))
        cut = ((max(a, start) - start, min(b, end) - start, a == b) for a, b in self.spans)
        return Untrusted(found, [(a, b) for a, b, empty in cut if a < b or (empty and a == b)])

    def __iter__(self) -> Iterator[str]:
        return (Untrusted(character) for character in plain(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Untrusted, (plain(self), self.spans)

    def __deepcopy__(self, memory: Any) -> Untrusted:
        return self


def _made_new(name: str) -> Callable[..., Any]:
    method = getattr(str, name)

    def made(self: Untrusted, *arguments: Any, **named: Any) -> Any:
        return taint(method(plain(self), *arguments, **named))

    made.__name__, made.__doc__ = name, method.__doc__
    return made


METHODS = (
    *("capitalize", "casefold", "center", "expandtabs", "format", "format_map", "join", "ljust", "lower", "lstrip"),
    *("partition", "removeprefix", "removesuffix", "replace", "rjust", "rpartition", "rsplit", "rstrip", "split"),
    *("splitlines", "strip", "swapcase", "title", "translate", "upper", "zfill", "__mul__", "__rmul__", "__mod__"),
)
for _name in METHODS:
    setattr(Untrusted, _name, _made_new(_name))
Untrusted.__rmod__ = lambda self, form: taint(plain(form) % (plain(self),))  # type: ignore[attr-defined]


def plain(text: str) -> str:
    """The same characters as a `str` that says nothing of their origin. For what sends, stores and compares them."""
    return str.__str__(text)


def joined(parts: Iterable[str]) -> str:
    """The parts one after another, each span kept; a plain `str` where all of them are."""
    parts = list(parts)
    spans: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        if isinstance(part, Untrusted):
            spans += ((at + start, at + end) for start, end in part.spans)
        at += len(part)
    text = "".join(parts)
    return Untrusted(text, spans) if spans or any(isinstance(part, Untrusted) for part in parts) else text


def taint(value: T) -> T:
    """The same value with every text in it from outside, whole: for what a tool gives back, and for what a model made
    of a text from outside.

    Goes into lists, tuples, sets, mappings, dataclasses and pydantic models; iterators become lists. Numbers, truth
    values and None stay: they hold no words."""
    return _changed(value, lambda text: Untrusted(plain(text)))


def released(value: str, among: Iterable[str]) -> str:
    """A text from outside that is one of a few known ones, as a plain string: the known one. Raises `BadInput` for
    another."""
    known = {plain(text): text for text in among}
    if plain(value) not in known:
        raise BadInput(f"'{plain(value)[:60]}' is none of the {len(known)} known texts: it stays untrusted")
    return plain(known[plain(value)])


def is_untrusted(value: Any) -> bool:
    """Whether any text in a value is from outside, however deep."""
    if isinstance(value, Untrusted):
        return True
    if isinstance(value, str | bytes | int | float | None):
        return False
    if isinstance(value, Mapping):
        return any(is_untrusted(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(is_untrusted, value))
    fields = _fields(value)
    return fields is not None and any(map(is_untrusted, fields.values()))


def can_taint(value: Any) -> bool:
    """Whether `taint` reaches all there is in a value: not in objects of an unknown make."""
    if value is None or isinstance(value, str | int | float):
        return True
    if isinstance(value, Mapping):
        return all(can_taint(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(can_taint, value))
    fields = _fields(value)
    return fields is not None and all(map(can_taint, fields.values()))


def _fields(value: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(type(value), "model_fields") and hasattr(value, "model_copy"):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return None


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_changed(key, change): _changed(part, change) for key, part in value.items()}
    if isinstance(value, list | set | frozenset | Iterator):
        kind = list if isinstance(value, Iterator) else type(value)
        return kind(_changed(part, change) for part in value)
    if isinstance(value, tuple):
        parts = [_changed(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    fields = _fields(value)
    if fields is None:
        return value
    new = {name: _changed(part, change) for name, part in fields.items()}
    if hasattr(value, "model_copy"):
        return value.model_copy(update=new)
    made = object.__new__(type(value))  # not by its constructor, which may check or compute
    for name, part in {**getattr(value, "__dict__", {}), **new}.items():
        object.__setattr__(made, name, part)
    return made


def spans_of(text: str) -> Spans:
    """Spans from outside; none for a plain string."""
    return text.spans if isinstance(text, Untrusted) else ()
