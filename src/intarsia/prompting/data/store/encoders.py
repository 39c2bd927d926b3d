"""Whatever turns texts into vectors, behind one call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intarsia.errors import BadInput

Array = np.ndarray[Any, Any]
AUTO, DEFAULT = "auto", "minilm"


@dataclass
class Encoder:
    """- name: what a store notes it by; where it is a model's name, it can be opened again by it. fingerprint: equal
    where vectors are. embed: [text, width] of texts. tokenizer: to measure chunks by, if there is one."""

    name: str
    fingerprint: str
    embed: Callable[[Sequence[str]], Any]
    tokenizer: Any = None

    def vectors(self, texts: Sequence[str]) -> Array:
        """[text, width] float32, each of length one. Raises `BadInput` where the encoder gives something else."""
        rows = np.asarray(self.embed(list(texts)), np.float32)
        if rows.ndim != 2 or len(rows) != len(texts):
            raise BadInput(f"encoder {self.name}: {len(texts)} texts gave an array of shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise BadInput(f"encoder {self.name}: gave numbers that are not finite")
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def encoder_of(given: Any) -> Encoder:
    """The encoder that is meant.

    - a known model's name, a hub id, a folder: loaded now, the mean over its last states. A `Model` or an exported
      encoder (`OnnxEncoder`): the same.
    - a `Backend`: its `embed`. A function from a list of texts to rows: itself, by its name, or by its attribute
      `fingerprint`.

    Raises `BadInput` for anything else."""
    if isinstance(given, Encoder):
        return given
    if isinstance(given, str):
        from intarsia.models import load

        return _of_model(load(given), given)
    if hasattr(given, "network") or hasattr(given, "states"):
        return _of_model(given, "")
    if hasattr(given, "embed") and hasattr(given, "fingerprint"):
        return Encoder(given.name, f"backend:{given.fingerprint}", _waiting(given), getattr(given, "tokenizer", None))
    if callable(given):
        name = getattr(given, "__qualname__", type(given).__qualname__)
        place = f"{getattr(given, '__module__', type(given).__module__)}.{name}"
        print_ = getattr(given, "fingerprint", None) or place
        return Encoder(place, f"function:{print_}", given, getattr(given, "tokenizer", None))
    raise BadInput(
        f"encoder: {given!r} is none: give the name of a model, a Model, a Backend, a function from texts to rows, or "
        "None for a store that is searched by words alone"
    )


def _of_model(model: Any, name: str) -> Encoder:
    from intarsia.models.embedding import embed

    identity = getattr(model, "identity", None)
    facts = [type(model).__name__] if identity is None else [identity.sha256, list(identity.changes)]
    if identity is None or identity.sha256 is None:
        facts += [name or getattr(identity, "source", "memory"), str(getattr(model, "config", ""))]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
    name = name or getattr(identity, "source", "memory")
    return Encoder(name, f"model:{digest}", lambda texts: embed(model, texts), model.tokenizer)


def _waiting(backend: Any) -> Callable[[Sequence[str]], Any]:
    """The backend's `embed`, waited for, also where an event loop runs already."""

    def embed(texts: Sequence[str]) -> Any:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(backend.embed(texts))).result()

    return embed
