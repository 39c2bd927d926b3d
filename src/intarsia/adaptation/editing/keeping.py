"""What took long and depends on the weights alone is kept in the cache, by name: `<cache>/editing/NAME.safetensors`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intarsia.errors import IntarsiaError
from intarsia.models.cache import cache_dir
from intarsia.models.saved import Saved


def mark(*parts: Any) -> str:
    """A short name for anything that prints the same when it is the same."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(repr(part).encode() + b"\n")
    return digest.hexdigest()


def kept(name: str, usable: Callable[[Saved], bool] = lambda saved: True) -> Saved | None:
    """What is kept under a name; None where there is nothing, or nothing that can be read and is `usable`."""
    try:
        saved = Saved.read(_path(name))
        return saved if saved is not None and usable(saved) else None
    except (OSError, IntarsiaError):
        return None


def keep(name: str, saved: Saved) -> None:
    """Keep it; a cache that cannot be written only costs time."""
    try:
        saved.write(_path(name))
    except OSError:
        return


def _path(name: str) -> Path:
    return cache_dir() / "editing" / f"{name}.safetensors"
