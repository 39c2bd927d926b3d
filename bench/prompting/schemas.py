"""Random JSON schemas: nested objects, lists with bounds, choices, numbers within bounds, texts with patterns, lengths
and formats, alternatives, references (also to themselves), values that may be null. Everything ends: a model that
writes at random comes to the end of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

PATTERNS = (
    "^[a-z]{2,5}$", "^[A-Z]{2}-\\d{1,4}$", "^(red|green|blue)$", "^\\d{3}-\\d{2}$", "^[a-z]+(_[a-z]+){0,2}$",
    "^#[0-9a-f]{6}$", "^v\\d{1,2}(\\.\\d{1,2}){1,2}$",
)  # fmt: skip
FORMATS = ("uuid", "ipv4", "date", "time", "date-time", "email")
KEYS = ("name", "id", "size", "kind", "tags", "when", "note", "next", "näme", "a b", "x-y", 'quo"te')
WORDS = ("yes", "no", "maybe", "a longer choice", "ünï", "", "null", "12")


def schema(seed: int, depth: int = 3) -> dict[str, Any]:
    """A JSON schema (draft 2020-12) that some value has; the same for the same seed."""
    return _Maker(random.Random(seed)).whole(depth)


class _Maker:
    def __init__(self, draw: random.Random):
        self.draw = draw
        self.shared: dict[str, Any] = {}
        self.begun = 0

    def whole(self, depth: int) -> dict[str, Any]:
        made = self.object(depth) if self.draw.random() < 0.8 else self.any(depth)
        return {**made, **({"$defs": self.shared} if self.shared else {})}

    def any(self, depth: int) -> dict[str, Any]:
        leaves: list[Callable[[int], dict[str, Any]]] = [
            self.text, self.text, self.integer, self.number, self.choice, self.boolean, self.nothing, self.constant,
        ]  # fmt: skip
        nodes = [self.object, self.list, self.alternatives, self.nullable, self.reference, self.row, self.all_of]
        return self.draw.choice(leaves if depth <= 0 else leaves + nodes * 2)(depth - 1)

    def object(self, depth: int) -> dict[str, Any]:
        names = self.draw.sample(KEYS, self.draw.randint(0, 4))
        made: dict[str, Any] = {
            "type": "object",
            "properties": {name: self.any(depth - 1) for name in names},
            "additionalProperties": False,
        }
        needed = [name for name in names if self.draw.random() < 0.7]
        if needed or self.draw.random() < 0.5:
            made["required"] = needed
        return made

    def list(self, depth: int) -> dict[str, Any]:
        low = self.draw.randint(0, 2)
        return {"type": "array", "items": self.any(depth), "minItems": low, "maxItems": low + self.draw.randint(0, 2)}

    def row(self, depth: int) -> dict[str, Any]:
        parts = [self.any(depth) for _ in range(self.draw.randint(1, 3))]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}

    def text(self, depth: int) -> dict[str, Any]:
        kind = self.draw.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": self.draw.choice(PATTERNS)}
        if kind == 1:
            return {"type": "string", "format": self.draw.choice(FORMATS)}
        low = self.draw.randint(0, 4)
        return {"type": "string", "minLength": low, "maxLength": low + self.draw.randint(0, 8)}

    def integer(self, depth: int) -> dict[str, Any]:
        low = self.draw.randint(-200, 200)
        made: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": low + self.draw.randint(0, 1000)}
        if self.draw.random() < 0.2:
            made = {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + self.draw.randint(2, 50)}
        elif self.draw.random() < 0.2:
            made = {"type": "integer", "multipleOf": self.draw.randint(2, 9), "minimum": 0, "maximum": 500}
        return made

    def number(self, depth: int) -> dict[str, Any]:
        low = round(self.draw.uniform(-50, 50), self.draw.randint(0, 3))
        return {"type": "number", "minimum": low, "maximum": low + self.draw.randint(1, 100)}

    def choice(self, depth: int) -> dict[str, Any]:
        values: list[Any] = [*WORDS, 1, 2.5, True, None, ["a", 1], {"k": []}]
        return {"enum": self.draw.sample(values, self.draw.randint(1, 5))}

    def constant(self, depth: int) -> dict[str, Any]:
        return {"const": self.draw.choice([*WORDS, 3, -0.5, False, None])}

    def boolean(self, depth: int) -> dict[str, Any]:
        return {"type": "boolean"}

    def nothing(self, depth: int) -> dict[str, Any]:
        return {"type": "null"}

    def nullable(self, depth: int) -> dict[str, Any]:
        made = self.any(depth)
        if isinstance(made.get("type"), str) and "enum" not in made and made["type"] != "null":
            return {**made, "type": [made["type"], "null"]}
        return {"anyOf": [made, {"type": "null"}]}

    def alternatives(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.any(depth) for _ in range(self.draw.randint(2, 3))]}

    def all_of(self, depth: int) -> dict[str, Any]:
        low = self.draw.randint(0, 20)
        return {"type": "integer", "allOf": [{"minimum": low}, {"maximum": low + self.draw.randint(0, 9)}]}

    def reference(self, depth: int) -> dict[str, Any]:
        """To something shared, or to itself by way of a list that may be empty."""
        if self.shared and self.draw.random() < 0.4:  # those that are finished: none may need itself
            return {"$ref": f"#/$defs/{self.draw.choice(list(self.shared))}"}
        name, self.begun = f"part{self.begun}", self.begun + 1
        itself = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "maxItems": 1}
        made = {
            "type": "object",
            "properties": {"value": self.any(min(depth, 1)), **({"more": itself} if self.draw.random() < 0.5 else {})},
            "required": ["value"],
            "additionalProperties": False,
        }
        self.shared[name] = made
        return {"$ref": f"#/$defs/{name}"}
