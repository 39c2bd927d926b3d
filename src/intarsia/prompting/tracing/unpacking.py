"""Typed values again, out of what `values.pack` made of them.

Classes come only from modules that are loaded, or Intarsia's own: a file of events can name a class, and cannot make
this process import anything."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.tracing.values import REGISTERED, SEEN, TAG, TEXTS, canonical, is_pydantic

_standing: dict[str, Any] = {}


def unpack(data: Any) -> Any:
    """The value again, of the same types. Raises `BadInput` for a class that is not there any more."""
    if isinstance(data, list):
        return [unpack(item) for item in data]
    if not isinstance(data, dict):
        return data
    kind = data.get(TAG)
    if kind is None:
        return {key: unpack(item) for key, item in data.items()}
    if kind in TEXTS:
        return TEXTS[kind][2](data["value"])
    if kind not in _BACK:
        raise BadInput(f"a value of kind '{kind}' in the trace is not known here: a newer Intarsia wrote it")
    return _BACK[kind](data)


def _unpack_object(data: dict[str, Any]) -> Any:
    cls = _resolve(data["class"])
    fields = {name: unpack(item) for name, item in data["fields"].items()}
    try:
        if data[TAG] == "pydantic":
            if not is_pydantic(cls):
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


def _unpack_known(data: dict[str, Any]) -> Any:
    if (known := REGISTERED.get(data["class"])) is None:
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
    "registered": _unpack_known,
}


def stands_for(name: str, module: Any) -> None:
    """Classes that a trace says are of the module `name` are looked up in `module`: what was begun as a script
    (`__main__`) can be gone on with from elsewhere."""
    _standing[name] = module


def _resolve(name: str) -> type:
    if name in SEEN:
        return SEEN[name]
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
