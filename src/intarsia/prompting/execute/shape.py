"""`Shape`: the form an answer must have, made from a type, and the value read back from the answer."""

from __future__ import annotations

import enum
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.errors import BadInput, MissingExtra
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import InvalidOutput
from intarsia.prompting.execute.schemas import adapter_of, is_type, schema_of

_FENCE = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)
_FLAGS = {re.IGNORECASE: "i", re.DOTALL: "s", re.MULTILINE: "m", re.VERBOSE: "x"}


@dataclass(frozen=True)
class Grammar:
    """A context-free form, in Lark's notation as llguidance takes it: rules, `start` first; terminals in capitals."""

    lark: str


class Shape:
    """The form of an answer. `Shape.of(...)` makes one.

    - kind: `choice`, `regex`, `json`, `grammar`, or `text` for any text. name: what servers are told it is called.
    - constraint: as backends understand it; None for any text.
    - choices: the texts of a choice, each with the value that it stands for; empty for other kinds."""

    def __init__(self, kind: str, name: str, constraint: Constraint | None, choices: Mapping[str, Any], reader: Any):
        self.kind, self.name, self.constraint, self.choices = kind, name, constraint, dict(choices)
        self._reader = reader

    @staticmethod
    def of(form: Any, name: str | None = None) -> Shape:
        """The shape of

        - `Literal["joy", "anger"]`, a list of texts, an `Enum`: one of those, written bare;
        - a pydantic model, a dataclass, a `TypedDict`, `int`, `float`, `bool`, `list[...]`, `dict[...]`, `X | None`,
          dates and what else pydantic reads: JSON;
        - a mapping: a JSON schema, its answer read as plain JSON;
        - `re.Pattern`: a text that fits it, whole; `Grammar(lark)`: a text of that language; `str`: any text;
        - a `Shape` or a `Constraint`.

        Raises `BadInput` for what has no such form, and for forms no model can be held to."""
        made = _make(form, name)
        if made.constraint is not None and made.kind != "choice":
            from intarsia.prompting.base.masking import check_constraint

            check_constraint(made.constraint)
        return made

    def parse(self, text: str) -> Any:
        """The value that an answer stands for, of the shape's type. Space around it is no part of it, nor is a
        Markdown fence around JSON. Raises `InvalidOutput`, with the whole answer and what is wrong with it."""
        match self.kind:
            case "text":
                return text
            case "choice":
                if text.strip() not in self.choices:
                    shown = ", ".join(list(self.choices)[:8])
                    raise InvalidOutput(text, [f"{_short(text)} is none of {shown}"])
                return self.choices[text.strip()]
            case "regex":
                if self._reader.fullmatch(text) is None:
                    raise InvalidOutput(text, [f"{_short(text)} does not match {self._reader.pattern}"])
                return text
            case "json":
                return self._json(text)
        from intarsia.prompting.base.validating import check

        assert self.constraint is not None
        check(text, self.constraint)
        return text

    def _json(self, text: str) -> Any:
        bare = text.strip()
        if fenced := _FENCE.fullmatch(bare):
            bare = fenced[1]
        if self._reader is None:
            return self._plain(text, bare)
        import pydantic

        try:
            return self._reader.validate_json(bare)
        except pydantic.ValidationError as error:
            told = [f"{'.'.join(map(str, one['loc'])) or '$'}: {one['msg']}" for one in error.errors(include_url=False)]
            raise InvalidOutput(text, told) from None

    def _plain(self, text: str, bare: str) -> Any:
        """JSON under a schema that somebody gave."""
        from intarsia.prompting.base.validating import ByteMatcher, errors_of

        assert self.constraint is not None
        try:
            errors = errors_of(bare, self.constraint)
        except MissingExtra:
            # Without a library for schemas: what was held to the form is written just as the form wants it.
            at = ByteMatcher(self.constraint)
            if at.accept(bare.encode()) < len(bare.encode()) or not at.may_end:
                raise
            errors = []
        if errors:
            raise InvalidOutput(text, errors)
        return json.loads(bare)

    def describe(self) -> str:
        """The form in few words, for prompts: a model that was told the form fills it better."""
        from intarsia.prompting.execute.prompt import described

        return described(self if self.constraint is not None else None)

    def __repr__(self) -> str:
        return f"Shape({self.kind}, {self.name})"


def _make(form: Any, name: str | None) -> Shape:
    if isinstance(form, Shape):
        return form
    if isinstance(form, Constraint):
        return _of_constraint(form)
    if isinstance(form, re.Pattern):
        return _regex(form, name or "text")
    if isinstance(form, Grammar):
        return Shape("grammar", name or "text", Constraint("grammar", form.lark, name or "text"), {}, None)
    if isinstance(form, Mapping):
        name = name or _identifier(form.get("title") or "answer")
        return Shape("json", name, Constraint("json", _json_text(form), name), {}, None)
    if form is str:
        return Shape("text", name or "text", None, {}, None)
    if typing.get_origin(form) is typing.Literal:
        return _choice(typing.get_args(form), name or "choice")
    if isinstance(form, type) and issubclass(form, enum.Enum):
        return _enum(form, name or form.__name__)
    if isinstance(form, Sequence) and not isinstance(form, str | bytes):
        if not all(isinstance(text, str) for text in form):
            raise BadInput("a list of choices holds texts only; Literal[...] may hold numbers too")
        return _choice(form, name or "choice")
    if not is_type(form) and form not in (Any, None) and not hasattr(form, "__value__"):
        shown = repr(form) if len(repr(form)) < 40 else type(form).__name__
        raise BadInput(
            f"{shown} is no shape: give a type, Literal[...] or a list of texts, a JSON schema, a compiled regex "
            "(re.compile) or Grammar(...)"
        )
    reader = adapter_of(form)
    name = name or _identifier(getattr(form, "__name__", None) or "answer")
    return Shape("json", name, Constraint("json", _json_text(schema_of(reader, name)), name), {}, reader)


def _of_constraint(given: Constraint) -> Shape:
    if given.kind == "choice":
        return _choice(json.loads(given.source), given.name)
    if given.kind == "regex":
        return _regex(re.compile(given.source), given.name)
    return Shape(given.kind, given.name, given, {}, None)


def _choice(values: Sequence[Any], name: str) -> Shape:
    choices = {value if isinstance(value, str) else json.dumps(value): value for value in values}
    if not choices or len(choices) < len(values):
        raise BadInput(f"a choice needs texts that differ, one or more ({len(values)} given, {len(choices)} differ)")
    if bad := [text for text in choices if text != text.strip() or not text]:
        raise BadInput(f"a choice is a text without space around it, not {bad[0]!r}")
    constraint = Constraint("choice", json.dumps(list(choices), ensure_ascii=False), name)
    return Shape("choice", name, constraint, choices, None)


def _enum(form: type[enum.Enum], name: str) -> Shape:
    """By value where those are texts, else by name."""
    members = list(form)
    by_value = all(isinstance(member.value, str) and member.value.strip() for member in members)
    made = _choice([member.value if by_value else member.name for member in members], name)
    made.choices = dict(zip(made.choices, members, strict=True))
    return made


def _regex(pattern: re.Pattern[str], name: str) -> Shape:
    flags = "".join(letter for flag, letter in _FLAGS.items() if pattern.flags & flag)
    source = f"(?{flags}:{pattern.pattern})" if flags else pattern.pattern
    return Shape("regex", name, Constraint("regex", source, name), {}, pattern)


def _json_text(schema: Any) -> str:
    try:
        return json.dumps(schema, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"this is no JSON schema: {error}") from None


def _identifier(name: Any) -> str:
    return re.sub(r"\W+", "_", str(name), flags=re.ASCII).strip("_")[:64] or "answer"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
