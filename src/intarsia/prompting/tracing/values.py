"""Typed values as JSON and back: what a step was given and gave is kept so that a replay gives the same types.

Plain JSON stays as it is; everything else is an object with its type under `$type`. Classes come back only from modules
that are loaded, or Intarsia's own: a file of events can name a class, and cannot make this process import anything."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import hashlib
import importlib
import json
import math
import pathlib
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from intarsia.errors import BadInput

TAG = "$type"
_PLAIN = (str, bool, int, type(None))
_BARE: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}
_seen: dict[str, type] = {}  # classes that were packed in this process: those inside functions cannot be looked up
_standing: dict[str, Any] = {}
_texts: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
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


_registered: dict[str, _Registered] = {}


def register(cls: type, to: Callable[[Any], Any], back: Callable[[Any], Any]) -> None:
    """Say how values of a class are kept: `to(value)` gives what can be, `back` of that gives an equal value."""
    _registered[_name(cls)] = _Registered(cls, to, back)


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
    if (known := _registered.get(_name(kind))) is not None and known.cls is kind:
        return {TAG: "registered", "class": _name(kind), "value": pack(known.to(value), path)}
    if isinstance(value, type):
        return {TAG: "class", "class": _class(value)}
    if isinstance(value, enum.Enum):
        return {TAG: "enum", "class": _class(kind), "name": value.name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: pack(getattr(value, f.name), f"{path}.{f.name}") for f in dataclasses.fields(value)}
        return {TAG: "dataclass", "class": _class(kind), "fields": fields}
    if _is_pydantic(kind):
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
    for name, (cls, to, _) in _texts.items():
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


def unpack(data: Any) -> Any:
    """The value again, of the same types. Raises `BadInput` for a class that is not there any more."""
    if isinstance(data, list):
        return [unpack(item) for item in data]
    if not isinstance(data, dict):
        return data
    kind = data.get(TAG)
    if kind is None:
        return {key: unpack(item) for key, item in data.items()}
    if kind in _texts:
        return _texts[kind][2](data["value"])
    if kind not in _BACK:
        raise BadInput(f"a value of kind '{kind}' in the trace is not known here: a newer Intarsia wrote it")
    return _BACK[kind](data)


def _unpack_object(data: dict[str, Any]) -> Any:
    cls = _resolve(data["class"])
    fields = {name: unpack(item) for name, item in data["fields"].items()}
    try:
        if data[TAG] == "pydantic":
            if not _is_pydantic(cls):
                raise TypeError("it is no pydantic model now")
            return cls.model_construct(set(data["set"]), **fields)  # was valid when it was made
        if not dataclasses.is_dataclass(cls):
            raise TypeError("it is no dataclass now")
        made = object.__new__(cls)  # as it was, whatever `__init__` and `__post_init__` take and do
        known = {f.name for f in dataclasses.fields(cls)}
        if known != set(fields):
            raise TypeError(f"its fields are now {', '.join(sorted(known))}, and were {', '.join(sorted(fields))}")
        for name, item in fields.items():
            object.__setattr__(made, name, item)
        return made
    except (TypeError, ValueError) as error:
        raise BadInput(f"{data['class']} cannot be made again from the trace: {error}") from None


def _unpack_scalar(data: dict[str, Any]) -> Any:
    cls = _resolve(data["class"])
    base = next((b for b in (str, int, float) if issubclass(cls, b)), None)
    if base is None:
        raise BadInput(f"{data['class']} is no text and no number any more: the trace cannot be replayed with it")
    made = base.__new__(cls, data["value"])
    for name, item in data.get("state", {}).items():
        made.__dict__[name] = unpack(item)
    return made


def _unpack_numpy(data: dict[str, Any]) -> Any:
    import numpy as np

    flat = np.frombuffer(base64.b64decode(data["data"]), dtype=np.dtype(data["dtype"]))
    return flat.reshape(data["shape"]).copy() if "shape" in data else flat[0]


def _unpack_tuple(data: dict[str, Any]) -> Any:
    items = [unpack(item) for item in data["items"]]
    if "class" not in data:
        return tuple(items)
    cls = _resolve(data["class"])
    if not issubclass(cls, tuple):
        raise BadInput(f"{data['class']} is no tuple any more: the trace cannot be replayed with it")
    return tuple.__new__(cls, items)


def _unpack_enum(data: dict[str, Any]) -> Any:
    cls = _resolve(data["class"])
    if not issubclass(cls, enum.Enum) or data["name"] not in cls.__members__:
        raise BadInput(f"{data['class']} has no '{data['name']}' any more: the trace cannot be replayed with it")
    return cls[data["name"]]


def _unpack_registered(data: dict[str, Any]) -> Any:
    if (known := _registered.get(data["class"])) is None:
        raise BadInput(
            f"{data['class']} is not registered here: intarsia.prompting.tracing.register says how it is kept"
        )
    return known.back(unpack(data["value"]))


def _unpack_dtype(data: dict[str, Any]) -> Any:
    import numpy as np

    return np.dtype(data["value"])


_BACK: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda d: float(d["value"]),
    "dict": lambda d: {unpack(k): unpack(v) for k, v in d["items"]},
    "tuple": _unpack_tuple,
    "set": lambda d: {unpack(item) for item in d["items"]},
    "frozenset": lambda d: frozenset(unpack(item) for item in d["items"]),
    "timedelta": lambda d: datetime.timedelta(*d["value"]),
    "regex": lambda d: re.compile(d["value"], d["flags"]),
    "range": lambda d: range(*d["value"]),
    "class": lambda d: _resolve(d["class"]),
    "enum": _unpack_enum,
    "dataclass": _unpack_object,
    "pydantic": _unpack_object,
    "numpy": _unpack_numpy,
    "dtype": _unpack_dtype,
    "scalar": _unpack_scalar,
    "registered": _unpack_registered,
}


def _is_pydantic(cls: Any) -> bool:
    return isinstance(cls, type) and hasattr(cls, "model_fields") and hasattr(cls, "model_construct")


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(cls: type) -> str:
    _seen[_name(cls)] = cls
    return _name(cls)


def stands_for(name: str, module: Any) -> None:
    """Classes that a trace says are of the module `name` are looked up in `module`: what was begun as a script
    (`__main__`) can be gone on with from elsewhere."""
    _standing[name] = module


def _resolve(name: str) -> type:
    if name in _seen:
        return _seen[name]
    module, _, path = name.partition(":")
    if module not in sys.modules and module.partition(".")[0] == "intarsia":
        importlib.import_module(module)
    found: Any = _standing.get(module) or sys.modules.get(module)
    if found is None:
        raise BadInput(f"the trace holds a {name.replace(':', '.')}: import {module} before it is replayed")
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise BadInput(
            f"the trace holds a {name.replace(':', '.')}, which is not there: define it at a module's top level"
        )
    return found


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


def plain(data: Any) -> Any:
    """Packed data without its types, for people and other programs."""
    if isinstance(data, list):
        return [plain(item) for item in data]
    if not isinstance(data, dict):
        return data
    kind = data.get(TAG)
    if kind is None:
        return {key: plain(item) for key, item in data.items()}
    if kind in ("dataclass", "pydantic"):
        return {key: plain(item) for key, item in data["fields"].items()}
    if kind in ("tuple", "set", "frozenset"):
        return [plain(item) for item in data["items"]]
    if kind == "dict":
        return {k if isinstance(k := plain(key), str) else canonical(k): plain(v) for key, v in data["items"]}
    if kind == "enum":
        return data["name"]
    if kind == "numpy":
        return unpack(data).tolist()
    if kind == "class":
        return data["class"]
    return plain(data.get("value"))
