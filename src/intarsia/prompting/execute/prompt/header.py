"""The header of a prompt's file: YAML between two lines `---`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from intarsia.errors import BadInput, did_you_mean, first_line
from intarsia.prompting.base import Sampling
from intarsia.prompting.execute.prompt.types import InputType, checked, parse_type

KEYS = ("description", "inputs", "shape", "sampling")
# Names that a template or `render` has a meaning for.
RESERVED = ("shape", "fence", "tokenizer", "tools", "seed", "loop", "caller", "self", "varargs", "kwargs")
MISSING: Any = type("Missing", (), {"__repr__": lambda self: "required"})()


@dataclass(frozen=True)
class InputSpec:
    """One input. default: what stands for it where it is not given; `MISSING`: it has to be given."""

    type: InputType
    default: Any = MISSING
    description: str = ""

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is MISSING


@dataclass(frozen=True)
class Header:
    """What a prompt says of itself. inputs: None where it says nothing of them: any name it uses is one then.

    - shape: the form of the answer: a list of choices, or a JSON schema. sampling: how tokens are to be chosen where
      the caller does not say. lines: of the file, before the template begins."""

    description: str = ""
    inputs: dict[str, InputSpec] | None = None
    shape: Any = None
    sampling: Sampling = field(default_factory=Sampling)
    lines: int = 0


def split(source: str, name: str) -> tuple[Header, str]:
    """The header and the template below it. Raises `BadInput`."""
    lines = source.splitlines(keepends=True)
    if not lines or lines[0].strip() != "---":
        return Header(), source
    end = next((i for i in range(1, len(lines)) if lines[i].strip() == "---"), None)
    if end is None:
        raise BadInput(f"{name}: the header that begins in line 1 has no end: write a line `---` after it")
    import yaml

    try:
        found = yaml.safe_load("".join(lines[1:end])) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 2}" if mark else ""
        why = getattr(error, "problem", None) or first_line(error)
        hint = (
            "; inside {...}, a type with brackets is quoted: {a: 'list[str]'}" if "flow mapping" in str(error) else ""
        )
        raise BadInput(f"{name}{place}: the header is no YAML: {why}{hint}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{name}: the header must be `key: value` lines, is {type(found).__name__}")
    for key in found:
        if key not in KEYS:
            raise BadInput(
                f"{name}: the header knows no '{key}'{did_you_mean(str(key), KEYS)}; it knows {', '.join(KEYS)}"
            )
    return Header(
        description=str(found.get("description") or ""),
        inputs=_inputs(found["inputs"] or {}, name) if "inputs" in found else None,
        shape=_shape(found.get("shape"), name),
        sampling=_sampling(found.get("sampling") or {}, name),
        lines=end + 1,
    ), "".join(lines[end + 1 :])


def _inputs(found: Any, name: str) -> dict[str, InputSpec]:
    if not isinstance(found, dict):
        raise BadInput(f"{name}: `inputs` must be `name: type` lines, is {type(found).__name__}")
    out = {}
    for key, value in found.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise BadInput(f"{name}: an input's name is letters, digits and _ (given: {key!r})")
        if key in RESERVED:
            raise BadInput(f"{name}: an input cannot be called '{key}', which means something already")
        where = f"{name}: input '{key}'"
        if not isinstance(value, dict):
            out[key] = InputSpec(parse_type(value, where))
            continue
        if "type" not in value or (more := set(value) - {"type", "default", "description"}):
            wrong = "has no type" if "type" not in value else f"knows no {', '.join(map(repr, sorted(map(str, more))))}"
            raise BadInput(f"{where} {wrong}; it wants `type`, and takes `default` and `description`")
        kind = parse_type(value["type"], where)
        default = checked(value["default"], kind, f"{where}, its default") if "default" in value else MISSING
        out[key] = InputSpec(kind, default, str(value.get("description") or ""))
    return out


def _shape(found: Any, name: str) -> Any:
    if found is None or isinstance(found, dict) or (isinstance(found, list) and found):
        return [str(choice) for choice in found] if isinstance(found, list) else found
    raise BadInput(f"{name}: `shape` must be a list of choices or a JSON schema, is {found!r}")


def _sampling(found: Any, name: str) -> Sampling:
    fields = {field.name: field for field in dataclasses.fields(Sampling)}
    if not isinstance(found, dict):
        raise BadInput(f"{name}: `sampling` must be `key: value` lines, is {type(found).__name__}")
    for key, value in found.items():
        if key not in fields:
            raise BadInput(
                f"{name}: sampling knows no '{key}'{did_you_mean(str(key), fields)}; it knows {', '.join(fields)}"
            )
        if key == "stop":
            found = {
                **found,
                "stop": (value,)
                if isinstance(value, str)
                else tuple(checked(value, parse_type("list[str]", ""), f"{name}: sampling: stop")),
            }
            continue
        kind = str(fields[key].type)
        found = {**found, key: checked(value, parse_type(kind, name), f"{name}: sampling: {key}")}
    return Sampling(**found)
