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
    from intarsia.detection.checking.checker import Checker

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def check_beside(
    checker: Checker, documents: Sequence[Document], references: Sequence[Document], embedder: str
) -> list[Checked]:
    """Check documents, each beside the references of its topic (all, where they name none): what the detector's encoder
    says of the pair is heard, where it has one, and the references are shown, the nearest first.

    Raises `BadInput` for a reference that is the document itself: it would speak against anybody."""
    if not references:
        return checker(documents)
    mine, theirs = _texts(documents, references)
    topics = _of_topic(documents, references)
    siamese, paired = checker.detector.siamese, None
    if siamese is not None:
        paired = siamese.score(mine, [[theirs[row] for row in rows] for rows in topics])
    checked = checker(documents, paired)
    vectors, others = _vectors(embedder, mine, theirs)
    for out, rows, text, vector in zip(checked, topics, mine, vectors, strict=True):
        if out.verdict in ("unreadable", "too_short", "unsupported_language"):
            continue
        cosine = others[rows] @ vector
        for at in np.argsort(-cosine, kind="stable"):
            reference = references[rows[at]]
            shared = shared_runs(text, theirs[rows[at]])
            out.references.append(Compared(
                name=reference.name, generator=reference.generator, cosine=float(cosine[at]), shared=shared
            ))  # fmt: skip
    return checked


def _vectors(embedder: str, *some: Sequence[str]) -> list[np.ndarray]:
    from intarsia.models import load
    from intarsia.models.embedding import embed

    model = load(embedder)
    return [embed(model, texts) for texts in some]


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
