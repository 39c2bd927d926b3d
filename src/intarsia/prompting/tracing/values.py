"""Typed values as JSON: what a step was given and gave is kept so that a replay gives the same types.

Plain JSON stays as it is; everything else is an object with its type under `$type`. `unpacking` is the way back."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import hashlib
import json
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from intarsia.errors import BadInput

TAG = "$type"
_PLAIN = (str, bool, int, type(None))
_BARE: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}
SEEN: dict[str, type] = {}  # classes that were packed in this process: those inside functions cannot be looked up
TEXTS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "path": (pathlib.PurePath, str, pathlib.Path),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "bytes": (bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode),
}


class NotSerialisable(BadInput):
    """A value that cannot be kept. path: where it is in what was given (`inputs.documents[3].owner`)."""

    def __init__(self, path: str, value: Any, why: str = ""):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        super().__init__(
            f"{path}: {why or f'{kind} cannot be kept in a trace'}; give plain data, a dataclass or a pydantic model, "
            "or tell how it is kept with intarsia.prompting.tracing.register"
        )
        self.path = path


@dataclasses.dataclass(frozen=True)
class _Registered:
    cls: type
    to: Callable[[Any], Any]
    back: Callable[[Any], Any]


REGISTERED: dict[str, _Registered] = {}


def register(cls: type, to: Callable[[Any], Any], back: Callable[[Any], Any]) -> None:
    """Say how values of a class are kept: `to(value)` gives what can be, `back` of that gives an equal value."""
    REGISTERED[name_of(cls)] = _Registered(cls, to, back)


def pack(value: Any, path: str = "value") -> Any:
    """JSON of a value. Raises `NotSerialisable`, with the path of what cannot be kept."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}
    if kind is list:
        return [pack(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if kind is dict:
        return _pack_dict(value, path)
    if (known := REGISTERED.get(name_of(kind))) is not None and known.cls is kind:
        return {TAG: "registered", "class": name_of(kind), "value": pack(known.to(value), path)}
    if isinstance(value, type):
        return {TAG: "class", "class": _class(value)}
    if isinstance(value, enum.Enum):
        return {TAG: "enum", "class": _class(kind), "name": value.name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: pack(getattr(value, f.name), f"{path}.{f.name}") for f in dataclasses.fields(value)}
        return {TAG: "dataclass", "class": _class(kind), "fields": fields}
    if is_pydantic(kind):
        fields = {name: pack(getattr(value, name), f"{path}.{name}") for name in kind.model_fields}
        extra = {name: pack(item, f"{path}.{name}") for name, item in (value.model_extra or {}).items()}
        return {TAG: "pydantic", "class": _class(kind), "fields": fields | extra, "set": sorted(value.model_fields_set)}
    if isinstance(value, tuple):
        items = [pack(item, f"{path}[{i}]") for i, item in enumerate(value)]
        named = {"class": _class(kind)} if kind is not tuple else {}
        return {TAG: "tuple", **named, "items": items}
    if isinstance(value, set | frozenset):
        items = sorted((pack(item, f"{path}{{}}") for item in value), key=canonical)
        return {TAG: "set" if isinstance(value, set) else "frozenset", "items": items}
    if isinstance(value, datetime.timedelta):
        return {TAG: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
    for name, (cls, to, _) in TEXTS.items():
        if isinstance(value, cls):
            return {TAG: name, "value": to(value)}
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        return {TAG: "regex", "value": value.pattern, "flags": value.flags}
    if isinstance(value, range):
        return {TAG: "range", "value": [value.start, value.stop, value.step]}
    if kind.__module__.partition(".")[0] == "numpy":
        return _pack_numpy(value, path)
    if isinstance(value, str | int | float):  # a subclass, which says what a text is (not to be trusted, say)
        bare = next(to(value) for base, to in _BARE.items() if isinstance(value, base))
        state = {k: pack(v, f"{path}.{k}") for k, v in getattr(value, "__dict__", {}).items()}
        return {TAG: "scalar", "class": _class(kind), "value": bare, **({"state": state} if state else {})}
    if isinstance(value, Mapping):
        return _pack_dict(dict(value), path)
    raise NotSerialisable(path, value)


def _pack_dict(value: dict[Any, Any], path: str) -> Any:
    if all(type(key) is str for key in value) and TAG not in value:
        return {key: pack(item, f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]")
                for key, item in value.items()}  # fmt: skip
    items = [[pack(key, f"{path} (a key)"), pack(item, f"{path}[{key!r}]")] for key, item in value.items()]
    return {TAG: "dict", "items": items}


def _pack_numpy(value: Any, path: str) -> Any:
    import numpy as np

    if isinstance(value, np.generic | np.ndarray) and value.dtype.hasobject:
        raise NotSerialisable(path, value, "a numpy array of objects cannot be kept in a trace")
    if isinstance(value, np.generic | np.ndarray) and value.dtype.names is None:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        shape = {"shape": list(value.shape)} if isinstance(value, np.ndarray) else {}
        return {TAG: "numpy", "dtype": value.dtype.str, **shape, "data": data}
    if isinstance(value, np.dtype):
        return {TAG: "dtype", "value": value.str}
    raise NotSerialisable(path, value)


def is_pydantic(cls: Any) -> bool:
    """Whether it is a class of pydantic models, without importing pydantic."""
    return isinstance(cls, type) and hasattr(cls, "model_fields") and hasattr(cls, "model_construct")


def name_of(cls: type) -> str:
    """How a trace names a class: `module:Class`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(cls: type) -> str:
    SEEN[name_of(cls)] = cls
    return name_of(cls)


def canonical(data: Any) -> str:
    """The one text of packed data, equal for equal values."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def dumps(data: Any) -> str:
    """Packed data as text that a person can read and SQLite can keep."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(data, separators=(",", ":"))
    return text


def hash_of(data: Any) -> str:
    """sha256 of packed data, in hex, the first 32 digits."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:32]
