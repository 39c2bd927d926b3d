"""Where trained models and prepared pictures are kept: outside the repository, each under a name that says what made
it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """`$INTARSIA_BENCH_CACHE`, or ~/.cache/intarsia/bench/tokens; made when missing."""
    given = os.environ.get("INTARSIA_BENCH_CACHE")
    folder = Path(given) if given else Path.home() / ".cache" / "intarsia" / "bench" / "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def key(name: str, recipe: Mapping[str, Any]) -> str:
    """`name` with a digest of `recipe`: another recipe never picks up what this one left."""
    text = json.dumps(recipe, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
