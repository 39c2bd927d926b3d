"""The Jinja environment of prompts: sandboxed, strict, and it follows text from outside wherever a template takes it.

Where Jinja would lose an `Untrusted` string's origin (it joins pieces, prints lists, runs filters and calls), this
environment keeps it: pieces are joined with their spans, and what a filter, an operator or a call makes of anything
from outside is from outside, whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.runtime import BlockReference, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from intarsia.prompting.execute.prompt.blocks import MessageBlocks
from intarsia.prompting.execute.trust import Untrusted, is_untrusted, joined, plain, taint


class _Generator(CodeGenerator):
    """Compiled templates print and join by the environment's own functions."""

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.concat([environment.printed(part) for part in (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")])")

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        self.write("environment.printed(")


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """See the module. folder: where `include` looks; None: nowhere."""

    code_generator_class = _Generator
    concat = staticmethod(joined)
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, folder: Path | None):
        super().__init__(
            undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True,
            keep_trailing_newline=False, extensions=[MessageBlocks], loader=_Folder(folder), auto_reload=False,
        )  # fmt: skip
        for name in set(self.globals) - {"range", "dict", "namespace", "joiner", "cycler"}:
            del self.globals[name]
        self.filters["tojson"] = _to_json
        for name in ("safe", "escape", "e", "forceescape", "xmlattr", "urlize", "striptags"):
            self.filters.pop(name, None)  # of HTML, which a prompt is not
        self.filters = {name: _following(function) for name, function in self.filters.items()}

    @staticmethod
    def printed(value: Any) -> str:
        """What `{{ ... }}` puts into a message: text, marked where it is from outside."""
        if isinstance(value, str):
            return value
        text = str(value)
        return Untrusted(text) if is_untrusted(value) else text

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return joined((left, right))
        outside = is_untrusted(left) or is_untrusted(right)
        found = super().call_binop(context, operator, left, right)
        return taint(found) if outside else found

    def call(__self, __context: Any, __obj: Any, *arguments: Any, **named: Any) -> Any:  # as the base has it
        arguments, named = _listed(arguments, named)
        found = super().call(__context, __obj, *arguments, **named)
        if isinstance(__obj, Macro | BlockReference) or isinstance(getattr(__obj, "__self__", None), MessageBlocks):
            return found  # put together from pieces: their spans are exact
        bound = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        return taint(found) if is_untrusted([bound, arguments, named]) else found

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Untrusted) and attribute in ("format", "format_map"):
            return self.unsafe_undefined(obj, attribute)  # data is no template, not even Python's
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Untrusted) and argument in ("format", "format_map"):
            return self.unsafe_undefined(obj, argument)
        return super().getitem(obj, argument)


def _following(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def filtered(*arguments: Any, **named: Any) -> Any:
        arguments, named = _listed(arguments, named)
        outside = is_untrusted([arguments, named])
        found = function(*arguments, **named)
        return taint(found) if outside else found

    return filtered


def _listed(arguments: Iterable[Any], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Iterators as lists, whose parts can be looked at."""

    def listed(value: Any) -> Any:
        return list(value) if isinstance(value, Iterator) else value

    return tuple(map(listed, arguments)), {name: listed(value) for name, value in named.items()}


def _to_json(value: Any, indent: int | None = None) -> str:
    import dataclasses
    import json

    def known(part: Any) -> Any:
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            return dataclasses.asdict(part)
        if hasattr(part, "model_dump"):
            return part.model_dump(mode="json")
        raise TypeError(f"a {type(part).__name__} is no JSON")

    return json.dumps(value, ensure_ascii=False, indent=indent, default=known)


class _Folder(jinja2.BaseLoader):
    """Files of one folder, links out of it not followed."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Callable[[], bool]]:
        if self.folder is None:
            raise jinja2.TemplateNotFound(template, f"'{template}': a prompt that is no file has nothing to include")
        folder = self.folder.resolve()
        path = (folder / template).resolve()
        if not path.is_relative_to(folder):
            raise jinja2.TemplateNotFound(template, f"'{template}' is outside of the prompt's folder")
        if not path.is_file():
            raise jinja2.TemplateNotFound(template, f"there is no '{template}' in the prompt's folder")
        return path.read_text("utf-8"), plain(str(path)), lambda: True
