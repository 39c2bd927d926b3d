"""What a message of the API holds."""

from __future__ import annotations

from typing import Any


def text_of(content: Any) -> str:
    """A message's text, also where it comes in parts; empty where it has none."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
