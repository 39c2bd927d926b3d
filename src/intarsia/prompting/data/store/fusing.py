"""The rankings of one question into one: by ranks, by scores, or by scores with what the first hits tell.

Sources: Rocchio 1971, "Relevance Feedback in Information Retrieval" (a question moved towards what was found; without
anybody's judgement, "pseudo-relevance feedback"); Callan 1994, "Passage-Level Evidence in Document Retrieval" (the
document's share in a passage's score); and those of `ranking`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from intarsia.prompting.data.store.ranking import combined, fused
from intarsia.prompting.data.store.words import is_name

Array = np.ndarray[Any, Any]
Ranking = dict[int, float]
Fusion = Literal["feedback", "scores", "ranks"]
FUSIONS = ("feedback", "scores", "ranks")
WEIGHTS: dict[str, dict[str, float]] = {
    "scores": {"dense": 0.5, "words": 0.5},
    "feedback": {"dense": 0.6, "words": 0.4},
    "name": {"dense": 0.2, "words": 0.8},
    "ranks": {"dense": 1.0, "words": 1.0},
}
"""Of the two rankings, chosen on the questions for development of `bench.prompting.retrieval`, as what follows. `name`:
by scores, of a question that is nothing but one name of a program (`os.path.join`): an encoder of prose has no vector
for it, and no first hits to be trusted."""
FIRST, TOWARDS = 2, 0.7
"""With feedback: the question's vector is moved by so much of the mean of the first so many hits' vectors."""
DOCUMENT = 0.5
"""With feedback: the share of its document's best score that is added to a chunk's."""


def wants_feedback(query: str, fusion: Fusion) -> bool:
    """Whether a question is asked a second time."""
    return fusion == "feedback" and not is_name(query)


def first_hits(rankings: Mapping[str, Ranking]) -> list[int]:
    """The chunks that a question's vector is moved towards."""
    return list(combined(rankings, WEIGHTS["scores"]))[:FIRST]


def moved(query: Array, hits: Array) -> Array:
    """A question's vector [width] moved towards those of its first hits [hit, width], of length one."""
    if not len(hits):
        return query
    out = query + TOWARDS * hits.mean(0)
    return out / max(float(np.linalg.norm(out)), 1e-12)


def fuse(query: str, rankings: Mapping[str, Ranking], fusion: Fusion) -> Ranking:
    """Each chunk's score by both rankings, the best first; with feedback, `dense` is by the moved vector."""
    if fusion == "ranks":
        return fused({name: list(found) for name, found in rankings.items()}, WEIGHTS["ranks"])
    return combined(rankings, WEIGHTS["name" if is_name(query) else fusion])


def with_documents(order: Ranking, document: Mapping[int, int]) -> Ranking:
    """Each chunk's score with its document's share, the best first. document: of each chunk."""
    best: dict[int, float] = {}
    for chunk, score in order.items():
        best[document[chunk]] = max(score, best.get(document[chunk], 0.0))
    out = {
        chunk: (score + DOCUMENT * best[document[chunk]]) / (1 + DOCUMENT) for chunk, score in order.items()
    }  # fmt: skip
    return dict(sorted(out.items(), key=lambda pair: -pair[1]))
