"""What there is on a question: passages and facts, and how near they are to it."""

from __future__ import annotations

from dataclasses import dataclass

from intarsia.prompting.assistant.wording import stem
from intarsia.prompting.data.store import Found, Passage, Path, Store
from intarsia.prompting.data.store.words import is_name, telling

_ASKING = frozenset(("about", "any", "explain", "mean", "means", "said", "say", "says", "show", "tell", "tells"))
"""Words of asking: a small store may not have them, which says nothing."""


@dataclass(frozen=True)
class Evidence:
    """- passages: numbered from 1, best first. facts: around what the question names; entities: those names.
    - strength: 0 to 1: 1 where the question names what a passage is about; else the largest share of its telling words
      that a passage holds, each counted by how rare it is (a passage that has all but the one word that matters is far
      away), and the mean of that and the nearest passage's cosine where there are vectors."""

    question: str
    passages: tuple[Passage, ...] = ()
    facts: tuple[Path, ...] = ()
    entities: tuple[str, ...] = ()
    strength: float = 0.0


def gather(
    store: Store, question: str, before: str = "", *, passages: int = 5, hops: int = 1, facts: int = 8
) -> Evidence:
    """Search a store for a question.

    - before: the question before it. A question that goes on with it (`And how do I write one?`) is also asked together
      with it, and the better of the two searches is taken."""
    queries = [question, *([f"{before} {question}"] if before else [])]
    searched = [
        _evidence(store, question, query, found)
        for query, found in zip(queries, store.search_many(queries, passages, hops=hops, facts=facts), strict=True)
    ]
    return max(searched, key=lambda one: one.strength)


def _evidence(store: Store, question: str, query: str, found: Found) -> Evidence:
    numbered = tuple(
        Passage(str(i), hit.text, hit.headings, hit.citation) for i, hit in enumerate(found.hits, 1)
    )  # fmt: skip
    return Evidence(question, numbered, found.facts, found.entities, _strength(store, query, found))


def _strength(store: Store, query: str, found: Found) -> float:
    if not found.hits:
        return 0.0
    names = {word.strip(".,;:?!()'\"`").casefold() for word in query.split() if is_name(word)}
    for hit in found.hits:
        if names & {part.casefold() for part in (*hit.path, hit.title)}:
            return 1.0
    worth = store.rarity([word for word in telling(query) if word not in _ASKING] or telling(query))
    held = [{stem(word) for word in telling(f"{hit.headings}\n{hit.text}")} for hit in found.hits]
    shares = [sum(value for word, value in worth.items() if stem(word) in one) for one in held]
    words = max(shares) / max(sum(worth.values()), 1e-9)
    cosines = [hit.scores.dense for hit in found.hits if hit.scores.dense is not None]
    return (words + min(max(0.0, *cosines), 1.0)) / 2 if cosines else words
