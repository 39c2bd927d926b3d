"""Vectors of texts, a few texts between two forwards of the engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from intarsia.models import Model

TEXTS = 16  # that are read between two forwards of answers


def embed(model: Model, texts: Sequence[str]) -> Generator[None, None, np.ndarray]:
    """A job of the engine: [text, width] float32, each of length one."""
    import numpy as np

    from intarsia.models import embedding

    # By length, so that each group is padded little.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out: np.ndarray | None = None
    for start in range(0, len(order), TEXTS):
        rows = order[start : start + TEXTS]
        found = embedding.embed(model, [texts[i] for i in rows])
        if out is None:
            out = np.zeros((len(texts), found.shape[1]), np.float32)
        out[rows] = found
        yield
    return embedding.embed(model, []) if out is None else out
