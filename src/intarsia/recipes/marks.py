"""YAML with line numbers: every value of a recipe knows where it stands in the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from intarsia.errors import BadInput, first_line

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: `on`, `off`, `yes` and `no` are words, `1e-4` is a number.

    PyYAML follows YAML 1.1, where the key `on:` is the boolean True and `1e-4` a string."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own convention)
        first: [
            (tag, pattern)
            for tag, pattern in rules
            if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


@dataclass
class Marked:
    """A YAML document as plain values, and the line of each: `line(("steps", 0, "compression.quantize", "bits"))`."""

    value: Any
    name: str = "recipe"
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """The line (from 1) of the value at `path`, or of the nearest thing around it that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def error(self, path: Path, message: str) -> BadInput:
        """A `BadInput` that starts with the file and line, as compilers write it."""
        line = self.line(path)
        return BadInput(f"{self.name}:{line}: {message}" if line else f"{self.name}: {message}")


def parse(text: str, name: str = "recipe") -> Marked:
    """Read a YAML document. Raises `BadInput` with the line on bad syntax, repeated keys or a tag that is not plain."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        marked = Marked(None, name)
        if node is not None:
            marked.value = _plain(loader, node, (), marked, ())
        return marked
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise BadInput(f"{name}{where}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{name}: not YAML: {first_line(error)}") from None
    finally:
        loader.dispose()


def scalar(text: str) -> Any:
    """One value as it would read in a recipe: `3`, `1e-4`, `[base, small]`, `word`."""
    return parse(text, "value").value


def _plain(loader: _Loader, node: yaml.Node, path: Path, marked: Marked, above: tuple[int, ...]) -> Any:
    if id(node) in above:
        raise BadInput(f"{marked.name}:{node.start_mark.line + 1}: an alias (*) inside its own anchor (&)")
    above = (*above, id(node))
    marked.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise BadInput(f"{marked.name}:{line}: a key must be a word")
            key = key_node.value
            if key in out:
                raise BadInput(f"{marked.name}:{line}: the key '{key}' stands here for the second time")
            marked.lines[(*path, key)] = line
            out[key] = _plain(loader, value_node, (*path, key), marked, above)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, i), marked, above) for i, item in enumerate(node.value)]
    return loader.construct_object(node)
