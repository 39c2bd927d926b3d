"""What every engine is asked: how many threads, and which tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput

FACTS = "intarsia-export.json"
"""What an engine's own files do not say: `context_length`, `vocabulary`, `end` (token ids)."""


def known_of(folder: Path) -> dict[str, Any]:
    """What stands beside an exported model; empty where it was made elsewhere."""
    file = folder / FACTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def threads_for(threads: int | None) -> int:
    """CPU threads: those asked for, or all cores this process may use. Raises `BadInput` for fewer than one."""
    if threads is not None and threads < 1:
        raise BadInput(f"threads: {threads} given, 1 or more wanted")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or cores


def checked_ids(ids: Sequence[int], room: int, vocabulary: int, context: int) -> list[int]:
    """Token ids that fit a vocabulary and, with `room` tokens after them, a context. Raises `BadInput` for others."""
    ids = [int(i) for i in ids]
    if not ids:
        raise BadInput("no tokens given")
    if bad := [i for i in ids if not 0 <= i < vocabulary]:
        raise BadInput(f"token id {bad[0]} is not below the vocabulary's {vocabulary}")
    if len(ids) + room > context:
        raise BadInput(f"{len(ids)} + {room} tokens are more than the context of {context}")
    return ids
