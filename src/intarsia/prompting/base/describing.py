"""Tools in plain messages, for models whose chat template knows none: in Hermes' form, which most models have read.

Used only where it is asked for; what it adds stands in the messages, for all to see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from intarsia.prompting.base.messages import Message, ToolSpec


def tools_text(tools: Sequence[ToolSpec]) -> str:
    """What a model is told of tools and of how it calls them."""
    lines = [
        json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}, ensure_ascii=False)
        for t in tools
    ]
    return (
        "You may call these functions:\n<tools>\n" + "\n".join(lines) + "\n</tools>\n"
        "To call one, write its name and arguments as JSON:\n"
        '<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>'
    )


def described(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """The conversation with its tools, calls and their results in the messages' texts.

    Tools are told at the end of the first message where that is a system message, else in one before all."""
    out = [_plain(message) for message in messages]
    if not tools:
        return out
    if out[0].role == "system":
        return [replace(out[0], content=f"{out[0].content}\n\n{tools_text(tools)}"), *out[1:]]
    return [Message("system", tools_text(tools)), *out]


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.calls:
        return message
    calls = [
        "<tool_call>\n"
        + json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        + "\n</tool_call>"
        for call in message.calls
    ]
    return Message(message.role, "\n".join([*([message.content] if message.content else []), *calls]))
