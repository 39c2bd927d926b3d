"""References as evidence: what a machine writes on a topic, beside what was handed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.checking.verdicts import Checked, Compared
from intarsia.detection.normalising import normalise
from intarsia.detection.peers.overlapping import SHORTEST, overlaps
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.siamese import SiameseDetector

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def log_odds(
    documents: Sequence[Document], references: Sequence[Document], siamese: SiameseDetector
) -> np.ndarray:  # fmt: skip
    """[document] what the encoder says of each beside the references of its topic. Raises as `compare`."""
    mine, theirs = _texts(documents, references)
    return siamese.score(mine, [[theirs[row] for row in rows] for rows in _of_topic(documents, references)])


def compare(
    checked: Sequence[Checked], documents: Sequence[Document], references: Sequence[Document], embedder: str
) -> None:  # fmt: skip
    """Add to each checked document the references of its topic (all, where they name none), the nearest first.

    Raises `BadInput` for a reference that is the document itself: it would speak against anybody."""
    from intarsia.models import load
    from intarsia.models.embedding import embed

    mine, theirs = _texts(documents, references)
    model = load(embedder)
    vectors, others = embed(model, mine), embed(model, theirs)
    for i, (out, rows) in enumerate(zip(checked, _of_topic(documents, references), strict=True)):
        if out.verdict in ("unreadable", "too_short", "unsupported_language"):
            continue
        cosine = others[rows] @ vectors[i]
        for at in np.argsort(-cosine, kind="stable"):
            reference = references[rows[at]]
            shared = shared_runs(mine[i], theirs[rows[at]])
            out.references.append(Compared(
                name=reference.name, generator=reference.generator, cosine=float(cosine[at]), shared=shared
            ))  # fmt: skip


def _texts(documents: Sequence[Document], references: Sequence[Document]) -> tuple[list[str], list[str]]:
    """Both as voices see them; refused where one of a document's references is the document."""
    mine, theirs = ([normalise(d.text).text for d in some] for some in (documents, references))
    for document, text in zip(documents, mine, strict=True):
        for reference, other in zip(references, theirs, strict=True):
            if text and text == other:
                raise BadInput(
                    f"{reference.name or 'a reference'} is the document {document.name} itself: a reference is "
                    "another text, which a machine wrote on the same topic"
                )
    return mine, theirs


def _of_topic(documents: Sequence[Document], references: Sequence[Document]) -> list[list[int]]:
    """For each document the references of its topic; all, where there are none of it."""
    every = list(range(len(references)))
    return [[r for r in every if d.group and references[r].group == d.group] or every for d in documents]


def shared_runs(text: str, other: str) -> list[str]:
    """Runs of words that both texts have, as the first writes them, the longest first; none inside another."""
    found = overlaps(text, [other], SHORTEST, _WORD)
    return list(dict.fromkeys(one.text for one in sorted(found, key=lambda one: (-one.words, one.start))))
