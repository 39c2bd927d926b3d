"""A wanted form in few words, for `{{ shape }}`: a model that is told the form fills it better than one that is only
held to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from intarsia.prompting.base import Constraint

INDENT = "  "
NAMES = {"integer": "whole number", "boolean": "true | false"}


def described(shape: Any) -> str:
    """A form as a text that people and models read.

    - shape: a text, as it is; a list of choices; a JSON schema; a `Constraint`; a `Shape`, or what `Shape.of` takes.
      None: an empty text."""
    if shape is None or isinstance(shape, str):
        return shape or ""
    if hasattr(shape, "model_json_schema"):
        return schema_text(shape.model_json_schema())
    if isinstance(shape, Mapping):
        return schema_text(shape)
    if isinstance(shape, Sequence):
        return _choices(shape)
    constraint = shape if isinstance(shape, Constraint) else getattr(shape, "constraint", shape)
    if constraint is shape and not isinstance(shape, Constraint):
        from intarsia.prompting.execute.shape import Shape

        constraint = Shape.of(shape).constraint
    if constraint is None:
        return ""
    if constraint.kind == "choice":
        return _choices(json.loads(constraint.source))
    if constraint.kind == "json":
        return schema_text(json.loads(constraint.source))
    return (
        f"a text that the regular expression {constraint.source} matches"
        if constraint.kind == "regex"
        else constraint.source
    )


def _choices(choices: Sequence[Any]) -> str:
    return " | ".join(map(str, choices))


def schema_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema as the object it asks for: `{"emotion": "joy" | "anger", "evidence": text}`; what is optional has a
    question mark, what is described a comment."""
    return _written(schema, schema, 0, ())


def _written(node: Any, whole: Mapping[str, Any], depth: int, within: tuple[str, ...]) -> str:
    if not isinstance(node, Mapping):
        return "anything"
    if reference := node.get("$ref"):
        if reference in within:
            return str(reference).rsplit("/", 1)[-1]
        found: Any = whole
        for part in str(reference).removeprefix("#/").split("/"):
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return _written(found, whole, depth, (*within, reference))
    if "const" in node:
        return json.dumps(node["const"], ensure_ascii=False)
    if "enum" in node:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in node["enum"])
    for key in ("anyOf", "oneOf"):
        if key in node:
            return " | ".join(dict.fromkeys(_written(part, whole, depth, within) for part in node[key]))
    if len(node.get("allOf", ())) == 1:
        return _written(node["allOf"][0], whole, depth, within)
    kind = node.get("type")
    if isinstance(kind, list):
        return " | ".join(_written({**node, "type": one}, whole, depth, within) for one in kind)
    if kind == "object" or "properties" in node:
        return _object(node, whole, depth, within)
    if kind == "array" or "items" in node:
        inner = _written(node.get("items"), whole, depth, within)
        sizes = (node.get("minItems"), node.get("maxItems"))
        return f"[{inner}, ...]" + _bounds(*sizes, unit=" of them")
    if kind == "string":
        form = node.get("format") or (f"matching {node['pattern']}" if "pattern" in node else "")
        return (
            f"text ({form})" if form else "text" + _bounds(node.get("minLength"), node.get("maxLength"), " characters")
        )
    if kind in ("number", "integer"):
        return NAMES.get(kind, "number") + _bounds(node.get("minimum"), node.get("maximum"))
    return NAMES.get(kind, kind) if kind else "anything"


def _object(node: Mapping[str, Any], whole: Mapping[str, Any], depth: int, within: tuple[str, ...]) -> str:
    properties = node.get("properties") or {}
    if not properties:
        more = node.get("additionalProperties")
        return "{text: " + _written(more, whole, depth, within) + ", ...}" if isinstance(more, Mapping) else "{...}"
    required, pad = set(node.get("required", ())), INDENT * (depth + 1)
    lines = []
    for number, (name, part) in enumerate(properties.items()):
        mark = "" if name in required else "?"
        comma = "," if number < len(properties) - 1 else ""
        about = part.get("description") if isinstance(part, Mapping) else None
        comment = f"  // {' '.join(str(about).split())}" if about else ""
        key = json.dumps(name, ensure_ascii=False) + mark
        lines.append(f"{pad}{key}: {_written(part, whole, depth + 1, within)}{comma}{comment}")
    return "{\n" + "\n".join(lines) + "\n" + INDENT * depth + "}"


def _bounds(low: Any, high: Any, unit: str = "") -> str:
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return f" (at {'least' if high is None else 'most'} {low if high is None else high}{unit})"
    return f" ({low} to {high}{unit})" if low != high else f" ({low}{unit})"
