"""How many tokens a text may have, where no tokenizer is there to count them: an estimate, on the high side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from intarsia.prompting.base.messages import Input, Message, ToolSpec

BYTES = 3  # of UTF-8 a token; vocabularies of today make about 4 of English, and 2 to 3 of most other scripts
MESSAGE = 5  # tokens of a message beside its content


def estimated_tokens(prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
    """An estimate for a text or messages; of token ids their number."""
    if isinstance(prompt, str):
        said = _of(prompt)
    elif all(isinstance(message, Message) for message in prompt):
        said = sum(MESSAGE + _of(m.content) + sum(_of(c.name, c.arguments) for c in m.calls) for m in prompt)  # type: ignore[union-attr]
    else:
        said = len(prompt)
    return said + sum(MESSAGE + _of(dataclasses.asdict(tool)) for tool in tools)


def _of(*said: object) -> int:
    total = sum(len((part if isinstance(part, str) else json.dumps(part, default=str)).encode()) for part in said)
    return -(-total // BYTES)
