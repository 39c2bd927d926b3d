"""References as evidence: what a machine writes on a topic, beside what was handed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.detection.checking.verdicts import Checked, Compared
from intarsia.detection.normalising import normalise
from intarsia.detection.peers.overlapping import SHORTEST, overlaps
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.siamese import SiameseDetector

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def compare(
    checked: Sequence[Checked], documents: Sequence[Document], references: Sequence[Document], embedder: str,
    siamese: SiameseDetector | None = None,
) -> None:  # fmt: skip
    """Add to each checked document the references of its topic (all, where they name none), the nearest first; and,
    where there is an encoder for it, the log odds it gives.

    Raises `BadInput` for a reference that is the document itself: it would speak against anybody."""
    import numpy as np

    from intarsia.models import load
    from intarsia.models.embedding import embed

    mine = [normalise(d.text).text for d in documents]
    theirs = [normalise(r.text).text for r in references]
    for document, text in zip(documents, mine, strict=True):
        for reference, other in zip(references, theirs, strict=True):
            if text and text == other:
                raise BadInput(
                    f"{reference.name or 'a reference'} is the document {document.name} itself: a reference is "
                    "another text, which a machine wrote on the same topic"
                )
    model = load(embedder)
    vectors, others = embed(model, mine), embed(model, theirs)
    for i, (out, document) in enumerate(zip(checked, documents, strict=True)):
        if out.verdict in ("unreadable", "too_short", "unsupported_language"):
            continue
        rows = [r for r, ref in enumerate(references) if ref.group == document.group] if document.group else []
        rows = rows or list(range(len(references)))
        if siamese is not None:
            out.siamese = float(siamese.score([mine[i]], [[theirs[row] for row in rows]])[0])
        cosine = others[rows] @ vectors[i]
        for at in np.argsort(-cosine, kind="stable"):
            reference = references[rows[at]]
            shared = shared_runs(mine[i], theirs[rows[at]])
            out.references.append(Compared(
                name=reference.name, generator=reference.generator, cosine=float(cosine[at]), shared=shared
            ))  # fmt: skip


def shared_runs(text: str, other: str) -> list[str]:
    """Runs of words that both texts have, as the first writes them, the longest first; none inside another."""
    found = overlaps(text, [other], SHORTEST, _WORD)
    return list(dict.fromkeys(one.text for one in sorted(found, key=lambda one: (-one.words, one.start))))
