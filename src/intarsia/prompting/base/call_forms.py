"""The form of calls, in a template's own way of writing them: a model held to it calls tools that exist, with
arguments that fit their schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.base.calling import CallFormat, call_format, special_id
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.masking import JSON_STYLE
from intarsia.prompting.base.messages import ToolSpec


def calls_constraint(
    tools: Sequence[ToolSpec],
    choice: str = "required",
    *,
    tokenizer: Any = None,
    form: CallFormat | None = None,
    parallel: bool = True,
    answer: Constraint | None = None,
) -> Constraint:
    """A form for answers that call tools, as a Lark grammar.

    - choice: `required`: one call or more. `auto`: text, then calls, if any; a call that begins must be valid. The
      name of a tool: a call of that one.
    - tokenizer: its chat template says how calls are written, and its special tokens what their markers are.
    - form: the way of writing, where no tokenizer says it.
    - parallel: whether several calls may be made at once.
    - answer: the form of the text, where `auto` lets one be written in place of calls; of any kind but a grammar."""
    if not tools:
        raise BadInput("no tools given to call")
    form = form or call_format(tokenizer)
    if choice not in ("auto", "required"):
        names = [tool.name for tool in tools]
        if choice not in names:
            raise BadInput(
                f"choice: auto, required or the name of a tool wanted, '{choice}' given{did_you_mean(choice, names)}"
            )
        tools, parallel = [tool for tool in tools if tool.name == choice], False
    lines = _Rules(form, tokenizer)
    parts = lines.calls(tools, parallel)
    if choice != "auto":
        start = lines.whole(*parts)
    elif answer is None:
        start = lines.or_text(*parts)
    else:
        start = f"{lines.answer(answer)} | {lines.whole(*parts)}"
    return Constraint("grammar", "\n".join([f"start: {start}", *lines.rules]), name="call")


class _Rules:
    """Grammar rules as they are collected."""

    def __init__(self, form: CallFormat, tokenizer: Any):
        self.form, self.tokenizer, self.rules = form, tokenizer, []  # type: ignore[var-annotated]

    def mark(self, text: str) -> str:
        """A marker: the special token, or its letters."""
        i = None if self.tokenizer is None else special_id(self.tokenizer, text)
        return json.dumps(text, ensure_ascii=False) if i is None else f"<[{i}]>"

    def rule(self, name: str, body: str) -> str:
        self.rules.append(f"{name}: {body}")
        return name

    def value(self, name: str, schema: dict[str, Any]) -> str:
        return self.rule(name, f"%json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}")

    def calls(self, tools: Sequence[ToolSpec], parallel: bool) -> tuple[str, str]:
        """What follows the first marker, and what may follow that; both with the markers of further calls."""
        form, opening = self.form, self.mark(self.form.opens[0])
        call = self.rule("call", " | ".join([self.one(i, tool) for i, tool in enumerate(tools)]))
        gap = json.dumps(form.gap) if form.gap else ""
        several = '(", " call)*' if parallel else ""
        listed = f'"[" {call} {several} "]"'
        match form.name:
            case "hermes":
                after = self.rule("after", f"{gap} {call} {gap} {self.mark(form.closes)}")
                return after, f"({gap} {opening} {after})*" if parallel else ""
            case "mistral":
                return f"{gap} {listed}", ""
            case "mistral-args":
                return call, f"({opening} {call})*" if parallel else ""
            case "pythonic":
                return listed, ""
        return call, ""  # Llama's templates take one at a time

    def one(self, i: int, tool: ToolSpec) -> str:
        """One call of one tool."""
        name = json.dumps(tool.name)
        if self.form.name == "pythonic":
            return self.rule(f"call_{i}", f'{json.dumps(tool.name + "(")} {self.keywords(i, tool)} ")"')
        arguments = self.value(f"arguments_{i}", _object(tool.parameters))
        if self.form.name == "mistral-args":
            return self.rule(f"call_{i}", f"{name} {self.mark('[ARGS]')} {arguments}")
        # In the pieces that JSON's own form is made of: the lexer would not go back from a longer one to an answer.
        pieces = ["{", '"name"', ": ", name, ", ", f'"{self.form.argument}"', ": "]
        return self.rule(f"call_{i}", f'{" ".join(map(json.dumps, pieces))} {arguments} "}}"')

    def keywords(self, i: int, tool: ToolSpec) -> str:
        """`x=1, y="a"`, those that must be there first."""
        schema = _object(tool.parameters)
        properties, required = schema.get("properties", {}), schema.get("required", [])
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        names = [n for n in properties if n in required] + [n for n in properties if n not in required]
        parts = []
        for j, name in enumerate(names):
            one = properties[name] if isinstance(properties[name], dict) else {}
            kinds = {"boolean": '("True" | "False")', "null": '"None"'}
            body = kinds.get(str(one.get("type"))) or self.value(f"value_{i}_{j}", {**shared, **one})
            parts.append((name in required, f"{json.dumps(name + '=')} {body}"))
        if not parts:
            return ""
        if parts[0][0]:
            rest = [f'", " {part}' if must else f'(", " {part})?' for must, part in parts[1:]]
            return " ".join([parts[0][1], *rest])
        ways = []  # nothing has to be there: any may be the first
        for j, (_, part) in enumerate(parts):
            ways.append(" ".join([part, *(f'(", " {later})?' for _, later in parts[j + 1 :])]))
        return "(" + " | ".join(f"({way})" for way in ways) + ")?"

    def whole(self, after: str, more: str) -> str:
        """Calls and nothing else."""
        if self.form.name in ("llama", "pythonic"):  # written without their marker
            return after
        return f"{self.mark(self.form.opens[0])} {after} {more}"

    def answer(self, form: Constraint) -> str:
        """An answer that has a form of its own."""
        from llguidance import regex_to_lark

        match form.kind:
            case "json":
                return self.value("answer", json.loads(form.source))
            case "choice":
                texts = (json.dumps(text, ensure_ascii=False) for text in json.loads(form.source))
                return self.rule("answer", " | ".join(texts))
            case "regex":
                return self.rule("answer", f"/{regex_to_lark(form.source, '')}/")
        raise BadInput("a grammar of one's own cannot be written beside calls: give a type, a choice or a regex")

    def or_text(self, after: str, more: str) -> str:
        """Text, with calls after it if any."""
        form, mark = self.form, self.mark(self.form.opens[0])
        calls, special = self.whole(after, more), mark.startswith("<[")
        letters = re.sub(r"([^\w\s<>])", r"\\\1", form.opens[0])
        # Of all texts: a complement by itself would hold bytes that no text has.
        without = "" if special else f"/(?s:.*)/ & ~/(?s:.*){letters}(?s:.*)/"
        if form.bare:  # an answer is calls from its first letter on, or text
            begins = rf"/(\s*[^\s\{form.bare}](?s:.*))?/"
            self.rule("TEXT", f"{begins} & {without}" if without else begins)
            return f"TEXT | {calls}"
        if special:
            self.rule("TEXT", "/(?s:.*)/")
            return f"TEXT | TEXT {calls} | {calls}"
        # The marker is letters: text runs up to it, and from there on the call.
        self.rule("TEXT", without)
        self.rule("head[lazy]", f"/(?s:.*){letters}/")
        return f"TEXT | head {after} {more}"


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's parameters as the schema of an object that has no other keys."""
    return {"additionalProperties": False, **schema, "type": "object"}
