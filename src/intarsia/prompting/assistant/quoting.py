"""Answers in quotes: the sentences of passages that are nearest to a question. Nothing is made up that way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.prompting.assistant.gathering import Evidence
from intarsia.prompting.assistant.replies import Reply, reply
from intarsia.prompting.data.store import Passage, Store
from intarsia.prompting.data.store.words import telling

MOST, LEAST, LONGEST = 2, 3, 320  # sentences of an answer; words of one at least, and characters at most
RANK = 0.04  # what a place further back in the search counts less: nearness of whole passages decides first
NEAR = 0.8  # of the best quote's score, that others have to have
_END = re.compile(r"\n\s*\n|(?<=[.!?])[\"')\]]*\s+(?=[\"'(`*\[]*[A-Z0-9])")


@dataclass(frozen=True)
class Quote:
    """`text` stands in the passage, but for line breaks. score: its likeness to the question, less by the passage's
    place."""

    text: str
    passage: Passage
    score: float


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, cut at their ends and between paragraphs, each on one line."""
    at = 0
    for end in (*(found.span() for found in _END.finditer(text)), (len(text), len(text))):
        piece = " ".join(text[at : end[0]].split())
        if any(character.isalpha() for character in piece):
            yield piece
        at = end[1]


def quotes(store: Store, evidence: Evidence, most: int = MOST) -> list[Quote]:
    """The sentences nearest to the question, best first, by vectors, or by words where the store has none."""
    candidates = [
        (sentence, passage, place)
        for place, passage in enumerate(evidence.passages)
        for sentence in sentences(passage.text)
        if len(sentence.split()) >= LEAST and len(sentence) <= LONGEST
    ]
    if not candidates:
        return []
    # A sentence of a manual seldom says what it is about: its heading does.
    near = _likeness(store)(evidence.question, [f"{p.about}: {sentence}" for sentence, p, _ in candidates])
    scored = [
        Quote(sentence, passage, float(score) - RANK * place)
        for (sentence, passage, place), score in zip(candidates, near, strict=True)
    ]
    best: dict[str, Quote] = {}
    for one in sorted(scored, key=lambda quote: -quote.score):
        best.setdefault(one.text, one)
    near_best = [quote for quote in best.values() if quote.score >= NEAR * next(iter(best.values())).score]
    return near_best[:most]


def quoted(found: Sequence[Quote], evidence: Evidence, quote_words: int = 5) -> Reply:
    """Quotes as an answer, each with its heading and its number."""
    passages = list(dict.fromkeys(quote.passage for quote in found))
    parts = [
        f"{passage.about or passage.citation}: "
        + " ".join(f"“{quote.text}”" for quote in found if quote.passage is passage)
        + f" [{passage.id}]"
        for passage in passages
    ]
    return reply("\n".join(parts), "quotes", passages, evidence, quote_words)


def _likeness(store: Store) -> Callable[[str, list[str]], Any]:
    if store.has_vectors:

        def by_vectors(question: str, lines: list[str]) -> Any:
            rows = store.embed([question, *lines])
            return rows[1:] @ rows[0]

        return by_vectors

    def by_words(question: str, lines: list[str]) -> list[float]:
        asked = set(telling(question))
        return [len(asked & set(telling(line))) / max(len(asked), 1) for line in lines]

    return by_words
