"""A conversation as a model reads it: by the tokenizer's own chat template, with words that stay words.

What stands in messages and tools is text: whatever looks like a special token there is encoded as the characters it is
made of. Where nothing looks like one, the tokens are exactly those of the template's whole text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.errors import BadInput, first_line
from intarsia.prompting.base.describing import described
from intarsia.prompting.base.messages import Message, ToolSpec
from intarsia.prompting.base.splicing import Encoder, Marks, encoder


@dataclass(frozen=True)
class ChatText:
    """What a model reads. text: as the template writes it. ids: its tokens; decoded, they are the text again (where
    the tokenizer can give a text back at all)."""

    text: str
    ids: tuple[int, ...]


def chat(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, describe: bool = False
) -> ChatText:  # fmt: skip
    """The text and the tokens of a conversation, up to where the assistant's answer begins.

    - describe: where the template knows no tools, or not the messages of tools: write them into the messages as
      `described` does, for all to see in the text. Without it such a conversation is refused.

    Raises `BadInput` where there is no template, or where it refuses or leaves out what was given: nothing is added
    and nothing gets lost unseen."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise BadInput("this model has no chat template: give a text or token ids, or take a model tuned for chat")
    if not messages:
        raise BadInput("a conversation of no messages: give one at least")
    if describe and (tools or any(m.calls or m.role == "tool" for m in messages)) and not knows_tools(tokenizer):
        messages, tools = described(messages, tools), ()
    turns, specs = [_turn(m) for m in messages], [_spec(t) for t in tools]
    text = _render(tokenizer, turns, specs)
    marks = Marks(text)
    skeleton = _render(tokenizer, *_marked(turns, specs, marks))
    _check_whole(messages, tools, marks, skeleton, describe)
    encode = encoder(tokenizer)
    held = [words for words, strict in _words(turns, specs) if encode.holds(words, strict)]
    if not held:
        ids = encode.template(text)
        if encode.specials(ids) == encode.specials(encode.template(skeleton)):
            return ChatText(text, tuple(ids))
        # Words that are harmless alone make up a special token with what stands beside them.
        return _spliced(encode, text, skeleton, marks)
    marks = Marks(text, only=frozenset(held))
    return _spliced(encode, text, _render(tokenizer, *_marked(turns, specs, marks)), marks)


def knows_tools(tokenizer: Any) -> bool:
    """Whether the chat template shows tools to the model."""
    probe = ToolSpec("intarsia_probe", "A probe.", {"type": "object", "properties": {}})
    try:
        return probe.name in _render(tokenizer, [{"role": "user", "content": "?"}], [_spec(probe)])
    except BadInput:
        return False


def _spliced(encode: Encoder, text: str, skeleton: str, marks: Marks) -> ChatText:
    pieces = marks.pieces(skeleton, text)
    return ChatText("".join(piece.text for piece in pieces), tuple(encode.spliced(pieces)))


def _render(tokenizer: Any, turns: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
    import jinja2

    try:
        return tokenizer.apply_chat_template(
            turns, tools=tools or None, tokenize=False, add_generation_prompt=True
        )  # fmt: skip
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"the model's chat template refuses these messages: {first_line(error, 200)}") from error


def _turn(message: Message) -> dict[str, Any]:
    """A message as templates take it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.role == "tool":
        turn |= {"tool_call_id": message.call, "name": message.name}
    return turn


def _spec(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _marked(
    turns: list[dict[str, Any]], tools: list[dict[str, Any]], marks: Marks
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """The same with a mark in the place of every text that is others' words."""
    out = []
    for turn in turns:
        new = turn | {"content": marks.of(turn["content"])}
        if "tool_calls" in turn:
            new["tool_calls"] = [_replaced(call, marks) for call in turn["tool_calls"]]
        for key in ("tool_call_id", "name"):
            if key in turn:
                new[key] = marks.of(turn[key])
        out.append(new)
    return out, [_replaced(tool, marks) for tool in tools]


def _replaced(given: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """A call or a tool with marks. What templates branch on keeps its value: types, and the keys of schemas."""
    function = given["function"]
    new: dict[str, Any] = {"name": marks.of(function["name"])}
    if "arguments" in function:
        new["arguments"] = _deep(function["arguments"], marks)
    else:
        new["description"] = marks.of(function["description"])
        new["parameters"] = _deep(function["parameters"], marks)
    out = given | {"function": new}
    if "id" in given:
        out["id"] = marks.of(given["id"])
    return out


def _deep(value: Any, marks: Marks) -> Any:
    if isinstance(value, str):
        return marks.of(value, kept=True)
    if isinstance(value, dict):
        return {marks.of(key, kept=True): _deep(part, marks) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_deep(part, marks) for part in value]
    return value


def _words(turns: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """All texts that are others' words, and whether they are others' than the model's own."""
    for turn in turns:
        for key in ("content", "tool_call_id", "name"):
            if turn.get(key):
                yield turn[key], turn["role"] != "assistant"
        for call in turn.get("tool_calls", ()):
            yield from ((text, True) for text in _texts(call))
    for tool in tools:
        yield from ((text, True) for text in _texts(tool))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _check_whole(
    messages: Sequence[Message], tools: Sequence[ToolSpec], marks: Marks, skeleton: str, describe: bool
) -> None:  # fmt: skip
    """Raise `BadInput` where the template leaves something out."""
    way = (
        "" if describe else "; let them be described in the messages (describe_tools), where all can see it, or take "
        "a model whose template knows them"
    )  # fmt: skip
    for tool in tools:
        if not marks.shown(tool.name, skeleton):
            raise BadInput(f"the model's chat template knows no tools{way}")
    for number, message in enumerate(messages, 1):
        if message.content.strip() and not marks.shown(message.content, skeleton):
            end = way if message.role == "tool" else ": put it into another message"
            raise BadInput(f"the model's chat template leaves out message {number} ({message.role}){end}")
        for call in message.calls:
            if not marks.shown(call.name, skeleton):
                raise BadInput(f"the model's chat template leaves out calls of tools (message {number}){way}")
