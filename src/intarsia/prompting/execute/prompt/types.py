"""Types of a prompt's inputs, as its header writes them: `str`, `list[Turn]`, `dict[str, untrusted]`, `int | None`."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.execute.trust import Untrusted, can_taint, plain, taint

SIMPLE = {"str": str, "int": int, "float": float, "bool": bool, "None": type(None)}
NAMES = (*SIMPLE, "any", "list", "dict", "untrusted", "Literal")


@dataclass(frozen=True)
class InputType:
    """A type. name: one of `NAMES`, `|` for one of several, or a class's name; of: the types in its brackets, or the
    values of a `Literal`."""

    name: str
    of: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.name == "|":
            return " | ".join(map(str, self.of))
        if self.name == "Literal":
            return f"Literal[{', '.join(map(repr, self.of))}]"
        return self.name + (f"[{', '.join(map(str, self.of))}]" if self.of else "")


ANY = InputType("any")


def parse_type(text: Any, where: str) -> InputType:
    """Read a type. Raises `BadInput` that begins with `where`."""
    try:
        return _read(ast.parse(str(text).strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError) as error:
        why = f"no type '{error}'{did_you_mean(str(error), NAMES)}" if type(error) is ValueError else "no type"
        raise BadInput(f"{where}: '{text}' is {why}; types are {', '.join(NAMES)}, classes by name, and `|`") from None


def _read(node: ast.expr) -> InputType:
    if isinstance(node, ast.Constant) and node.value is None:
        return InputType("None")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = (_read(node.left), _read(node.right))
        return InputType("|", tuple(t for side in sides for t in (side.of if side.name == "|" else (side,))))
    if isinstance(node, ast.Name):
        if node.id not in NAMES and not node.id[:1].isupper():
            raise ValueError(node.id)
        return InputType(node.id)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Literal":
            return InputType("Literal", tuple(ast.literal_eval(part) for part in inner))
        if len(inner) != {"list": 1, "untrusted": 1, "dict": 2}.get(node.value.id):
            raise ValueError(ast.unparse(node))
        return InputType(node.value.id, tuple(map(_read, inner)))
    raise ValueError(ast.unparse(node))


def checked(value: Any, kind: InputType, at: str) -> Any:
    """The value as a template gets it: what is declared untrusted is so then. Raises `BadInput`, which says `at`."""
    if kind.name == "|":
        for option in kind.of:
            try:
                return checked(value, option, at)
            except BadInput:
                continue
        raise _wrong(value, kind, at)
    if kind.name == "untrusted":
        value = checked(value, kind.of[0] if kind.of else InputType("str"), at)
        if not can_taint(value):
            raise BadInput(f"{at}: a {type(value).__name__} cannot be followed as untrusted; give texts, lists, dicts")
        return taint(value)
    if kind.name == "any":
        return value
    if kind.name == "Literal":
        if value in kind.of and type(value) in (*map(type, kind.of), Untrusted):
            # One of a few texts that the header names is no text from outside.
            return plain(value) if isinstance(value, str) else value
        raise _wrong(value, kind, at)
    if kind.name == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind.name in SIMPLE:
        if not isinstance(value, SIMPLE[kind.name]) or (isinstance(value, bool) and kind.name in ("int", "float")):
            raise _wrong(value, kind, at)
        return value
    if kind.name == "list":
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
            raise _wrong(value, kind, at)
        return [checked(part, kind.of[0], f"{at}[{i}]") for i, part in enumerate(value)] if kind.of else list(value)
    if kind.name == "dict":
        if not isinstance(value, Mapping):
            raise _wrong(value, kind, at)
        if not kind.of:
            return dict(value)
        return {
            checked(k, kind.of[0], f"{at}: a key"): checked(v, kind.of[1], f"{at}[{k!r}]") for k, v in value.items()
        }
    # A class by name: what is of it or of a class under it, or its fields as a mapping, as JSON gives them.
    if isinstance(value, Mapping) or kind.name in (c.__name__ for c in type(value).__mro__):
        return value
    raise _wrong(value, kind, at)


def _wrong(value: Any, kind: InputType, at: str) -> BadInput:
    shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
    return BadInput(f"{at}: wants {kind}, is {type(value).__name__} ({shown})")
