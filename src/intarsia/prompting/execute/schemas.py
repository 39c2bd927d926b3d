"""JSON schemas of Python types, as models can be held to them."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from intarsia.errors import BadInput, first_line

_YEAR = r"([1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"
_LEAP = r"([1-9]\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = rf"({_YEAR}-((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)|{_LEAP}-02-29)"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?"
# JSON schema's own forms let the 31st of June through, and lengths of time that no Python type holds.
PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": r"^P\d{1,5}DT([01]?\d|2[0-3])H[0-5]?\dM[0-5]?\dS$",
}
DECIMAL = r"^-?\d{1,15}(\.\d{1,12})?$"
FORMATS = ("uuid", "email", "uri", "ipv4", "ipv6", "hostname")
# What says nothing that a model can be held to, or what the type checks by itself when an answer is read.
_DROPPED = ("uniqueItems", "propertyNames", "discriminator", "contentMediaType", "contentEncoding", "contentSchema")
_NODES = ("items", "additionalProperties")  # one schema each
_LISTS = ("anyOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "patternProperties")


def adapter_of(kind: Any) -> Any:
    """pydantic's reader of a type. Raises `BadInput` for what has no JSON form."""
    import pydantic

    try:
        return pydantic.TypeAdapter(_with_typed_dicts(kind))
    except (pydantic.errors.PydanticUserError, NameError, TypeError) as error:
        raise BadInput(f"no shape can be made of {_name(kind)}: {first_line(error)}") from None


def schema_of(adapter: Any, name: str) -> dict[str, Any]:
    """The JSON schema of a type: objects have no other keys than theirs, dates are dates, and what cannot be held at
    the logits is left to the reading."""
    import pydantic
    from pydantic.json_schema import GenerateJsonSchema

    class Written(GenerateJsonSchema):
        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            if {"ge", "gt", "le", "lt"} & schema.keys():
                return self.float_schema({**schema, "type": "float"})
            return {"type": "string", "pattern": DECIMAL}  # a number's exponent would have no bounds

    try:
        schema = adapter.json_schema(schema_generator=Written)
        return _held(schema, schema.get("$defs", {}))
    except pydantic.errors.PydanticUserError as error:
        raise BadInput(f"no shape can be made of {name}: {first_line(error)}") from None


def _held(node: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(node, dict):
        return node
    made = {key: value for key, value in node.items() if key not in _DROPPED}
    if "oneOf" in made:
        made["anyOf"] = made.pop("oneOf")
    if (form := made.get("format")) is not None:
        if form in PATTERNS and "pattern" not in made:
            made["pattern"] = PATTERNS[made.pop("format")]
        elif form not in FORMATS or "pattern" in made:
            del made["format"]
    names = node.get("propertyNames", {})
    names = shared.get(str(names.get("$ref", "")).rpartition("/")[2], names)
    if "enum" in names and "properties" not in made:  # keys of a few kinds: each may be there or not
        made["properties"] = {name: made.get("additionalProperties", {}) for name in names["enum"]}
        made["additionalProperties"] = False
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    for key in _NODES:
        if key in made:
            made[key] = _held(made[key], shared)
    for key in _LISTS:
        if key in made:
            made[key] = [_held(part, shared) for part in made[key]]
    for key in _MAPS:
        if key in made:
            made[key] = {name: _held(part, shared) for name, part in made[key].items()}
    return made


def _with_typed_dicts(kind: Any) -> Any:
    """The same type with `typing.TypedDict`s as pydantic reads them before Python 3.12."""
    import typing_extensions

    if typing.is_typeddict(kind) and type(kind).__module__ == "typing":
        hints = {key: _with_typed_dicts(hint) for key, hint in typing.get_type_hints(kind, include_extras=True).items()}
        optional = kind.__optional_keys__
        marked = {
            key: typing_extensions.NotRequired[hint]
            if key in optional and typing.get_origin(hint) is not typing.NotRequired
            else hint
            for key, hint in hints.items()
        }
        return typing_extensions.TypedDict(kind.__name__, marked)  # type: ignore[operator]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, dict, tuple, set, frozenset) and arguments:
        return origin[tuple(map(_with_typed_dicts, arguments))]
    return kind


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def is_type(kind: Any) -> bool:
    """Whether something is a type, or one written with brackets and bars."""
    return isinstance(kind, type) or typing.get_origin(kind) is not None or dataclasses.is_dataclass(kind)
