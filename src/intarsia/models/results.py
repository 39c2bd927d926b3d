"""Results that long work keeps: small JSON files, each whole or absent, named by all that went into them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from intarsia.errors import writing_to


def mark(*facts: Any) -> str:
    """Of plain facts: equal ones have equal marks, 16 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where it is absent or no JSON object."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write beside and rename. Raises `BadInput` for a folder that cannot be written to."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")
        part.replace(path)
