"""Options from a `Config`: each field becomes one, with its choices, default and description."""

from __future__ import annotations

import collections.abc
import types
import typing
from pathlib import Path
from typing import Any

import click
import pydantic
from pydantic_core import PydanticUndefined

from intarsia.catalog import Config
from intarsia.errors import BadInput

# Names every technique's command uses for itself; a field of that name gets `--setting-<name>`.
RESERVED = frozenset(
    {"model", "data", "out", "html", "force", "json", "quiet", "debug", "help", "version", "device", "dtype"}
)
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)
_PREFIX = "setting_"


def options(config: type[Config], taken: typing.Collection[str] = ()) -> list[click.Option]:
    """One option a field. `taken`: further names that are not free (the technique's inputs)."""
    return [_option(name, field, {*RESERVED, *taken}) for name, field in config.model_fields.items()]


def settings(config: type[Config], given: dict[str, Any]) -> dict[str, Any]:
    """The settings a person gave, out of a command's parameters: what was left out keeps its default."""
    out: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        value = given.get(_PREFIX + name)
        if value is None or value == ():
            continue
        out[name] = _value(name, _bare(field.annotation), value)
    return out


def flag(name: str, taken: typing.Collection[str] = RESERVED) -> str:
    """How the option of a field is written."""
    return ("setting-" if name in taken else "") + name.replace("_", "-")


def kind_of(annotation: Any) -> str:
    """A field's type in a person's words, for tables."""
    bare, origin = _bare(annotation), typing.get_origin(_bare(annotation))
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in typing.get_args(bare))
    if origin in _LISTS:
        inner = [a for a in typing.get_args(bare) if a is not Ellipsis]
        return "list of " + (kind_of(inner[0]) if inner else "text")
    if origin in _MAPPINGS or bare is dict:
        return "key=value pairs"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind_of(a) for a in typing.get_args(bare))
    return {bool: "yes/no", int: "integer", float: "number", str: "text", Path: "path"}.get(bare, str(bare))


def default_of(field: Any) -> Any:
    """A field's default, or `PydanticUndefined` when it must be given."""
    if field.default_factory is not None:
        return field.default_factory()
    return field.default


def _option(name: str, field: pydantic.fields.FieldInfo, taken: typing.Collection[str]) -> click.Option:
    bare = _bare(field.annotation)
    origin = typing.get_origin(bare)
    word = flag(name, taken)
    given: dict[str, Any] = {"help": _help(field), "default": None, "show_default": False}
    if bare is bool:
        return click.Option([f"--{word}/--no-{word}", _PREFIX + name], **given)
    if origin is typing.Literal:
        given["type"] = click.Choice([str(value) for value in typing.get_args(bare)])
    elif origin in _LISTS or bare in _LISTS:
        given |= {"multiple": True, "metavar": "A,B,..."}
    elif origin in _MAPPINGS or bare in _MAPPINGS:
        given |= {"multiple": True, "metavar": "KEY=VALUE"}
    elif isinstance(bare, type) and issubclass(bare, pydantic.BaseModel):
        raise TypeError(f"the setting '{name}' is a {bare.__name__}: a config is flat, so that it fits a command line")
    else:
        # Text here; the config itself turns it into a number and says what is wrong with it, as in a recipe.
        given["metavar"] = {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(bare, "TEXT")
    return click.Option([f"--{word}", _PREFIX + name], **given)


def _help(field: pydantic.fields.FieldInfo) -> str:
    text = (field.description or "").strip()
    text = text[:1].upper() + text[1:]
    if text and not text.endswith((".", "?", ")")):
        text += "."
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if unit := extra.get("unit"):
        text += f" [{unit}]"
    default = default_of(field)
    if default is PydanticUndefined:
        return f"{text}  [required]"
    return f"{text}  [default: {shown(default)}]" if default not in (None, [], (), {}, "") else text


def shown(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _value(name: str, bare: Any, value: Any) -> Any:
    origin = typing.get_origin(bare)
    if origin is typing.Literal:
        return next(choice for choice in typing.get_args(bare) if str(choice) == value)
    if origin in _LISTS or bare in _LISTS:
        return [part.strip() for entry in value for part in str(entry).split(",") if part.strip()]
    if origin in _MAPPINGS or bare in _MAPPINGS:
        if bad := [entry for entry in value if "=" not in entry]:
            raise BadInput(f"--{flag(name)} {bad[0]}: wants KEY=VALUE")
        return {entry.partition("=")[0]: entry.partition("=")[2] for entry in value}
    return value


def _bare(annotation: Any) -> Any:
    """The annotation without `None` and `Annotated`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return _bare(inner[0])
    return annotation
