"""Calls of tools in a model's text: how a chat template writes them, and how they are read back.

Models were trained to write calls in one form each; their chat template shows which."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.prompting.base.messages import Call


@dataclass(frozen=True)
class CallFormat:
    """One way to write calls.

    - name: `hermes` (also Qwen's), `llama`, `mistral`, `mistral-args` or `pythonic`.
    - opens, closes: what a call begins and ends with, anywhere in a text; the first of `opens` is written. No
      `closes`: all that follows is calls.
    - bare: what an answer that is nothing but calls begins with, markers aside.
    - argument: the key of the arguments. gap: what is between a marker and the calls.
    - known: whether the template shows tools to the model at all."""

    name: str
    opens: tuple[str, ...]
    closes: str = ""
    bare: str = ""
    argument: str = "arguments"
    gap: str = ""
    known: bool = True

    def marker_ids(self, tokenizer: Any) -> frozenset[int]:
        """Ids of the special tokens that must be kept when an answer's ids are turned to text, for calls to be seen."""
        marks = {*self.opens, self.closes, "[ARGS]" if self.name == "mistral-args" else ""} - {""}
        return frozenset(i for mark in marks if (i := special_id(tokenizer, mark)) is not None)


def special_id(tokenizer: Any, text: str) -> int | None:
    """The id of a special token; None where the tokenizer has it as plain text, or not at all."""
    for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if str(token) == text:
            return i if token.special else None
    return None


def call_format(tokenizer: Any) -> CallFormat:
    """The way a tokenizer's chat template (or a template, as text) writes calls. Where it shows none: Hermes'."""
    template = tokenizer if isinstance(tokenizer, str) else getattr(tokenizer, "chat_template", None) or ""
    if isinstance(template, dict):  # several by name
        template = template.get("tool_use") or template.get("default") or ""
    if "<tool_call>" in template:
        return CallFormat("hermes", ("<tool_call>",), "</tool_call>", gap="\n")
    if "[TOOL_CALLS]" in template:
        if "[ARGS]" in template:
            return CallFormat("mistral-args", ("[TOOL_CALLS]",))
        return CallFormat("mistral", ("[TOOL_CALLS]",), bare="[", gap=" " if "[TOOL_CALLS] " in template else "")
    if "<|python_start|>" in template or "func_name1(" in template:
        return CallFormat("pythonic", ("<|python_start|>",), "<|python_end|>", bare="[")
    if "<|python_tag|>" in template or ('"parameters": ' in template and '"name": ' in template):
        return CallFormat("llama", ("<|python_tag|>",), bare="{", argument="parameters")
    return CallFormat("hermes", ("<tool_call>",), "</tool_call>", gap="\n", known="tools" in template)


@dataclass(frozen=True)
class Malformed:
    """Something that was meant as a call and is none. raw: as it was written; why: what is wrong with it."""

    raw: str
    why: str


@dataclass(frozen=True)
class Read:
    """An answer taken apart. text: what is not calls; malformed calls are still in it, as they were written."""

    text: str
    calls: tuple[Call, ...]
    malformed: tuple[Malformed, ...]


def read_calls(text: str, form: CallFormat, salt: str = "") -> Read:
    """The calls in a whole answer. salt: as of `CallReader`."""
    reader = CallReader(form, salt)
    plain = reader.feed(text) + reader.finish()
    return Read(plain, tuple(reader.calls), tuple(reader.malformed))


class CallReader:
    """The calls in an answer as it comes: `feed` gives on the text that is no call, and holds back what may be one.

    - calls, malformed: those read so far.
    - salt: what makes ids of calls differ where the same call is made twice in a conversation (the number of its
      messages, say). An id is nine letters and digits, which every template takes."""

    def __init__(self, form: CallFormat, salt: str = ""):
        self.form = form
        self.calls: list[Call] = []
        self.malformed: list[Malformed] = []
        self._salt, self._held, self._begun = salt, "", False
        self._mark: str | None = None  # what opened the call that is being read

    def feed(self, piece: str) -> str:
        """More of the answer. Returns the text that can be passed on."""
        self._held += piece
        out = ""
        while True:
            if self._mark is None:
                text, again = self._text()
            else:
                text, again = self._call()
            out += text
            if not again:
                return out

    def finish(self) -> str:
        """The answer has ended. Returns what is left of its text."""
        out = ""
        while self._mark is not None:
            mark, body, close = self._mark, self._held, self.form.closes
            inside, closed, rest = body.partition(close) if close else (body, "", "")
            self._mark, self._held = None, rest
            out += self._take(mark, inside, closed)
            out += self.feed("") if rest else ""
        left, self._held = self._held, ""
        return out + (left if left.strip() or not self.calls else "")

    def _text(self) -> tuple[str, bool]:
        """Pass text on up to where a call may begin."""
        held, form = self._held, self.form
        if not self._begun:
            start = held.lstrip()
            if not start:
                return "", False
            if form.bare and start[0] == form.bare and not any(o.startswith(start[: len(o)]) for o in form.opens):
                self._mark, self._held, self._begun = "", start, True
                return "", True
        found = [(at, mark) for mark in form.opens if (at := held.find(mark)) >= 0]
        if found:
            at, mark = min(found)
            self._mark, self._held, self._begun = mark, held[at + len(mark) :], True
            return held[:at].rstrip(), True
        keep = max((n for mark in form.opens for n in range(1, len(mark)) if held.endswith(mark[:n])), default=0)
        free = held[: len(held) - keep].rstrip()  # spaces before a call belong to nobody: they wait for what follows
        if free:
            self._begun = True
        self._held = held[len(free) :]
        return free, False

    def _call(self) -> tuple[str, bool]:
        """Take a call off, if it is all there. A text inside its arguments may look like its end."""
        close = self.form.closes
        if not close:
            return "", False
        at = self._held.find(close)
        while at >= 0:
            if self._parse(self._held[:at]) is not None:
                body, self._held = self._held[:at], self._held[at + len(close) :]
                mark, self._mark = self._mark, None
                return self._take(mark, body, close), True
            at = self._held.find(close, at + 1)
        return "", False

    def _parse(self, body: str) -> list[tuple[str, Any]] | None:
        try:
            return _READ[self.form.name](body)
        except (ValueError, SyntaxError, RecursionError, KeyError):
            return None

    def _take(self, mark: str, body: str, close: str) -> str:
        """Note the calls in a body; returns it as text where there are none."""
        found = self._parse(body)
        if found:
            for name, arguments in found:
                made = f"{self._salt}|{len(self.calls)}|{name}|{json.dumps(arguments, sort_keys=True, default=str)}"
                self.calls.append(Call(name, arguments, hashlib.sha256(made.encode()).hexdigest()[:9]))
            return ""
        raw = mark + body + close
        # Without a marker, what looks like no call is an answer that happens to begin like one.
        if mark or (self.form.name != "pythonic" and '"name"' in body and f'"{self.form.argument}"' in body):
            self.malformed.append(Malformed(raw, _what_is_wrong(body, self.form)))
        return raw


def _what_is_wrong(body: str, form: CallFormat) -> str:
    try:
        _READ[form.name](body)
    except (ValueError, SyntaxError, RecursionError, KeyError) as error:
        return f"no call could be read: {type(error).__name__}: {str(error)[:160]}"
    return "there is no call in it"


def _pairs(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Calls in a JSON value: an object, or a list of them."""
    found = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            raise ValueError("a call is a JSON object")
        one = one.get("function", one) if isinstance(one.get("function"), dict) else one
        name = one.get("name")
        arguments = next((one[key] for key in ("arguments", "parameters") if key in one), {})
        if isinstance(arguments, str):  # written as JSON inside JSON
            arguments = json.loads(arguments)
        if not isinstance(name, str) or not name:
            raise ValueError("a call has no name")
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of {name} are no JSON object")
        found.append((name, arguments))
    return found


def _json_values(text: str, between: str = " \t\r\n;,") -> list[Any]:
    """JSON values one after the other."""
    decoder, values, at = json.JSONDecoder(), [], 0
    text = text.strip(between)
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        while at < len(text) and text[at] in between:
            at += 1
    return values


def _read_json(body: str) -> list[tuple[str, Any]]:
    return [pair for value in _json_values(body) for pair in _pairs(value)]


def _read_llama(body: str) -> list[tuple[str, Any]]:
    if body.lstrip()[:1] in "{[":
        return _read_json(body)
    return _read_python(body)  # `brave_search.call(query="...")`


def _read_args(body: str) -> list[tuple[str, Any]]:
    """`name[ARGS]{...}`, several one after the other; or a list, as templates before it write."""
    if body.lstrip().startswith("["):
        return _read_json(body)
    found = []
    for part in body.split("[TOOL_CALLS]"):
        name, marked, arguments = part.partition("[ARGS]")
        if not marked:
            name, brace, arguments = part.partition("{")
            arguments = brace + arguments
        name = name.partition("[CALL_ID]")[0].strip()
        found += _pairs({"name": name, "arguments": json.loads(arguments)})
    return found


def _read_python(body: str) -> list[tuple[str, Any]]:
    """`[f(x=1), g()]`, arguments by name and literal."""
    tree = ast.parse(body.strip(), mode="eval").body
    calls = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    found = []
    for call in calls:
        if not isinstance(call, ast.Call):
            raise ValueError("a call is written name(argument=value)")
        name = ast.unparse(call.func).removesuffix(".call")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(f"the arguments of {name} have no names")
        found.append((name, {str(k.arg): ast.literal_eval(_Literals().visit(k.value)) for k in call.keywords}))
    return found


class _Literals(ast.NodeTransformer):
    """JSON's words among Python's literals."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        words = {"true": True, "false": False, "null": None}
        return ast.Constant(words[node.id]) if node.id in words else node


_READ: dict[str, Callable[[str], list[tuple[str, Any]]]] = {
    "hermes": _read_json,
    "llama": _read_llama,
    "mistral": _read_json,
    "mistral-args": _read_args,
    "pythonic": _read_python,
}


def malformed_in(text: str, forms: Sequence[CallFormat] = ()) -> tuple[Malformed, ...]:
    """What was meant as a call in the text of a reply and is none; forms: those to look for (all that have markers)."""
    forms = forms or (
        CallFormat("hermes", ("<tool_call>",), "</tool_call>"),
        CallFormat("mistral", ("[TOOL_CALLS]",)),
        CallFormat("llama", ("<|python_tag|>",), argument="parameters"),
    )
    return tuple(bad for form in forms for bad in read_calls(text, form).malformed)
