"""How near a text is to its references, without any training: the baseline of the Siamese detector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.siamese.asking import asked
from intarsia.models.embedding import LONGEST, embed

if TYPE_CHECKING:
    from intarsia.detection.siamese.asking import Asked, References
    from intarsia.models import Model


def frozen_cosine(model: Model, documents: Asked, references: References, *, longest: int = LONGEST) -> np.ndarray:
    """[document] float64: mean over a document's references of the cosine between the model's vectors of the two; NaN
    where it has none. Higher for text that a machine wrote.

    - longest: tokens of a text that are read, at most.

    Raises `BadInput` for a reference that is identical with its text, and a model without a tokenizer."""
    texts, others = asked(documents, references)
    vectors = embed(model, [*texts, *(text for some in others for text in some)], longest=longest).astype(float)
    out, at = np.full(len(texts), np.nan), len(texts)
    for i, some in enumerate(others):
        if some:
            out[i] = (vectors[at : at + len(some)] @ vectors[i]).mean()
        at += len(some)
    return out
