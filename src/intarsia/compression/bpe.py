"""The file of a fast tokenizer, as a tree, and what is to be known of one that is a byte-level BPE."""

from __future__ import annotations

import json
from typing import Any

from intarsia.errors import BadInput


def tokenizer_file(tokenizer: Any, what: str) -> dict[str, Any]:
    """The parts of a fast tokenizer by name (`model`, `pre_tokenizer`, ...), as its file has them.

    - what: that wants it, for the `BadInput` that another kind of tokenizer raises."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BadInput(f"{what} wants a fast tokenizer: wrap(network, tokenizer) with one")
    return json.loads(backend.to_str())


def by_bytes(said: dict[str, Any]) -> bool:
    """Whether a byte-pair encoding begins with bytes: every text has tokens, and none is unknown."""
    return not said["model"].get("byte_fallback") and '"ByteLevel"' in json.dumps(said["pre_tokenizer"])


def merges_of(said: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges, in order; older files have them as one text each."""
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in said["model"]["merges"]]  # type: ignore[misc]
