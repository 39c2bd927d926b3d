"""The tags that make messages: `{% system %}`, `{% user %}`, `{% assistant %}`, and `{% shot %}` for an example.

    {% system %}Name the emotion.{% endsystem %}
    {% for one in shots %}
    {% shot %}{{ one.text }}{% answer %}{{ one.label }}{% endshot %}
    {% endfor %}
    {% conversation history %}
    {% user %}{{ text }}{% enduser %}

`conversation` puts in messages that there are already (`Message`s, or mappings with `role` and `content`), calls of
tools and all. A shot is a user's message and the assistant's answer. Space at both ends of a message is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateRuntimeError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from intarsia.prompting.base import Message
from intarsia.prompting.execute.trust import plain, spans_of

ROLES = ("system", "user", "assistant")


class Conversation:
    """What is said while one template is rendered. said: messages in order, those of the template not fenced yet."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.inside = ""


saying: ContextVar[Conversation] = ContextVar("intarsia_prompt_conversation")


class MessageBlocks(Extension):
    """Jinja2's tags of messages: a block a role, `shot` with its `answer`, and `conversation`."""

    tags = {*ROLES, "shot", "conversation"}  # noqa: RUF012 (as the base has it)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """One tag as Jinja2's nodes: calls of what says a message."""
        opened = next(parser.stream)
        tag, line = opened.value, opened.lineno
        if tag == "conversation":
            call = self.call_method("_go_on", [parser.parse_expression()])
            return nodes.Output([call]).set_lineno(line)
        if tag != "shot":
            body = parser.parse_statements((f"name:end{tag}",), drop_needle=True)
            return self._block(tag, body, line)
        asked = parser.parse_statements(("name:answer", "name:endshot"))
        if parser.stream.current.value == "endshot":
            parser.fail("a shot has two parts: {% shot %} the text {% answer %} its answer {% endshot %}", line)
        next(parser.stream)
        answered = parser.parse_statements(("name:endshot",), drop_needle=True)
        return [self._block("user", asked, line), self._block("assistant", answered, line)]

    def _block(self, role: str, body: list[nodes.Node], line: int) -> nodes.CallBlock:
        for node in body:
            for inner in (node, *node.find_all(nodes.CallBlock)):
                if isinstance(inner, nodes.CallBlock) and _is_message(inner):
                    self.fail_nested(role, inner.lineno)
        call = self.call_method("_say", [nodes.Const(role)])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def fail_nested(self, role: str, line: int) -> None:
        from jinja2 import TemplateSyntaxError

        raise TemplateSyntaxError(f"a message inside of the {role}'s message: end that one before", line)

    def _say(self, role: str, caller: Callable[[], str]) -> str:
        conversation = saying.get()
        if conversation.inside:
            raise TemplateRuntimeError(f"a message inside of the {conversation.inside}'s message: end that one before")
        conversation.inside = role
        try:
            conversation.said.append(Message(role, trimmed(caller())))  # type: ignore[arg-type]
        finally:
            conversation.inside = ""
        return ""

    def _go_on(self, messages: Iterable[Any]) -> str:
        conversation = saying.get()
        if conversation.inside:
            raise TemplateRuntimeError(f"messages inside of the {conversation.inside}'s message: end that one before")
        conversation.said += map(_as_message, messages)
        return ""


def _as_message(one: Any) -> Message:
    if isinstance(one, Message):
        return one
    if isinstance(one, Mapping) and one.get("role") in ROLES and isinstance(one.get("content"), str):
        return Message(one["role"], one["content"])
    raise TemplateRuntimeError(
        f"a conversation has messages with a role ({', '.join(ROLES)}) and content, not {one!r:.60}"
    )


def _is_message(node: nodes.CallBlock) -> bool:
    return isinstance(node.call.node, nodes.ExtensionAttribute) and node.call.node.name == "_say"


def loose_text(tree: nodes.Template) -> tuple[int, str] | None:
    """Line and beginning of the first text that stands outside of all messages, where there are messages."""
    goes_on = (one for one in tree.find_all(nodes.ExtensionAttribute) if one.name == "_go_on")
    if not any(_is_message(block) for block in tree.find_all(nodes.CallBlock)) and next(goes_on, None) is None:
        return None
    for node in tree.body:
        for part in node.nodes if isinstance(node, nodes.Output) else ():
            if isinstance(part, nodes.TemplateData) and part.data.strip():
                before = part.data[: len(part.data) - len(part.data.lstrip())]
                return part.lineno + before.count("\n"), part.data.strip()[:40]
    return None


def trimmed(text: str) -> str:
    """Without space at both ends; what is from outside is not touched."""
    bare, spans = plain(text), spans_of(text)
    start = len(bare) - len(bare.lstrip())
    end = len(bare.rstrip())
    if spans:
        start, end = min(start, spans[0][0]), max(end, spans[-1][1])
    return text[start : max(start, end)]
