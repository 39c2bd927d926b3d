"""References as evidence: what a machine writes on a topic, beside what was handed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.detection.checking.verdicts import Checked, Compared
from intarsia.detection.normalising import normalise
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.siamese import SiameseDetector

SHORTEST = 4  # words in a row that are worth showing
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


def shared_runs(text: str, other: str, shortest: int = SHORTEST) -> list[str]:
    """Runs of words that both texts have, as the first writes them, the longest first; none inside another."""
    mine = list(_WORD.finditer(text))
    words = [w.group().casefold() for w in mine]
    theirs = [w.group().casefold() for w in _WORD.finditer(other)]
    places: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(theirs) - shortest + 1):
        places.setdefault(tuple(theirs[at : at + shortest]), []).append(at)
    runs, done = [], 0
    for start in range(len(words) - shortest + 1):
        best = 0
        for at in places.get(tuple(words[start : start + shortest]), ()):
            length = shortest
            while (
                start + length < len(words) and at + length < len(theirs)
                and words[start + length] == theirs[at + length]
            ):  # fmt: skip
                length += 1
            best = max(best, length)
        if best and start + best > done:
            runs.append((best, start))
            done = start + best
    runs.sort(key=lambda run: (-run[0], run[1]))
    return list(dict.fromkeys(text[mine[s].start() : mine[s + n - 1].end()] for n, s in runs))
