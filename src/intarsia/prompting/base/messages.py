"""What is said to a model: messages, tools it may call, calls it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Call:
    """A tool that a model wants to be called. arguments: as JSON gives them, not checked yet."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    - content: plain text. Never markup: whatever a tokenizer's special tokens look like, here they are characters.
    - calls: tools that the assistant called. call: id of the call that a tool's message answers; name: that tool's."""

    role: Role
    content: str
    calls: tuple[Call, ...] = ()
    call: str = ""
    name: str = ""


@dataclass(frozen=True)
class ToolSpec:
    """What a model is told of a tool. parameters: JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


Input = str | Sequence[int] | Sequence[Message]
"""What a model can be given: a text to go on with, the same as token ids, or a conversation."""
