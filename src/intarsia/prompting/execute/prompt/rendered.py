"""What a prompt became: all that a model is going to read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from intarsia.prompting.base import Message, Sampling
from intarsia.prompting.execute.trust import Span, plain


@dataclass(frozen=True)
class Rendered(Sequence[Message]):
    """A conversation that is ready to be sent. It is the sequence of its messages: a backend takes it as it is.

    - text, ids: exactly what the model reads, where a tokenizer was given. hash: sha256 of the messages.
    - inputs: what was filled in, with defaults. untrusted: where text from outside stands in the messages.
    - prompt, version: of whom it was made. sampling, shape: what its header says of them.
    - fence: the name of the marks around text from outside; empty where there is none."""

    messages: tuple[Message, ...]
    prompt: str = ""
    version: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    untrusted: tuple[Span, ...] = ()
    text: str | None = None
    ids: tuple[int, ...] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    shape: Any = None
    fence: str = ""

    @property
    def hash(self) -> str:
        """What stands for its messages in logs: equal for the same messages alone."""
        return hash_of(self.messages)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        return self.messages[index]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __str__(self) -> str:
        return "\n\n".join(f"[{message.role}]\n{plain(message.content)}" for message in self.messages)


def hash_of(messages: Sequence[Message]) -> str:
    """sha256 of what is said: roles, contents, calls."""
    told = [
        [m.role, plain(m.content), [[c.name, c.arguments, c.id] for c in m.calls], m.call, m.name] for m in messages
    ]
    return hashlib.sha256(
        json.dumps(told, ensure_ascii=False, sort_keys=True).encode(errors="surrogatepass")
    ).hexdigest()
