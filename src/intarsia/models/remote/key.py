"""A key: read from the environment when something is asked, sent to the server alone, shown nowhere."""

from __future__ import annotations

import os

from intarsia.errors import BadInput

KEY_VARIABLE = "OPENAI_API_KEY"


def read_key(variable: str) -> str:
    """The key that an environment variable holds; empty without one. Raises `BadInput` for what cannot be a key."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):  # an error further down would show it
        raise BadInput(f"the key in {variable} holds characters that no key has")
    return key


def head_with(key: str) -> dict[str, str]:
    """The fields of a request's head that carry a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}
