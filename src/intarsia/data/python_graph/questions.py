"""Questions about the standard library that a Python programmer can check, from what no one has learned."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from intarsia.data.python_graph.relations import QUESTIONS
from intarsia.data.records import Fact
from intarsia.data.snapshots import FactSnapshot

# One of each in turn, in this order; the others follow when these are used up.
_ORDER = (
    "raises",
    "inherits_from",
    "added_in",
    "overrides",
    "calls",
    "takes",
    "chapter",
    "implements",
    "is_a",
    "imports",
)
# Answers that tell little of what was learned.
_VAGUE = frozenset({"sys", "os", "property", "__repr__", "Exception", "NotImplementedError"})


@dataclass(frozen=True)
class Question:
    """A question, and the facts it asks for: (`head`, `relation`, one of `answers`).

    - answers: the right ones that are in no train split, in the order of their names.
    - learned: right ones that are in a train split; a ranking of answers leaves these out."""

    text: str
    head: str
    relation: str
    answers: tuple[str, ...]
    learned: tuple[str, ...] = ()


def questions(snapshots: Sequence[FactSnapshot], most: int = 12) -> list[Question]:
    """At most `most` questions whose answers are in the test splits, about well-known entities, with varied relations
    and no two about the same entity.

    What is well known is judged by the graph: by the facts of the entity, and by how many modules import its own."""
    train = [fact for snapshot in snapshots for fact in snapshot.train]
    test = [fact for snapshot in snapshots for fact in snapshot.test]
    held: dict[tuple[str, str], set[str]] = defaultdict(set)
    for snapshot in snapshots:
        for fact in (*snapshot.valid, *snapshot.test):
            held[fact.head, fact.relation].add(fact.tail)
    learned: dict[tuple[str, str], set[str]] = defaultdict(set)
    for fact in train:
        learned[fact.head, fact.relation].add(fact.tail)
    fame = _fame(train)
    asked: dict[str, list[Fact]] = defaultdict(list)
    for fact in sorted(test, key=lambda fact: (-fame(fact.head), len(fact.head), fact.head, fact.tail)):
        if fact.relation in QUESTIONS and fact.tail not in _VAGUE:
            asked[fact.relation].append(fact)
    relations = [*(r for r in _ORDER if r in asked), *sorted(r for r in asked if r not in _ORDER)]
    chosen: list[Question] = []
    used: set[str] = set()
    while len(chosen) < most and any(asked.values()):
        for relation in relations:
            fresh = (f for f in asked[relation] if _owner(f.head) not in used and f.tail not in used)
            fact = next(fresh, None)
            if fact is None:
                asked[relation] = []
            elif len(chosen) < most:
                asked[relation].remove(fact)
                used |= {_owner(fact.head), fact.tail}
                key = (fact.head, relation)
                text = QUESTIONS[relation].format(head=fact.head)
                chosen.append(Question(text, *key, tuple(sorted(held[key])), tuple(sorted(learned[key]))))
    return chosen


def _owner(name: str) -> str:
    """The top module, or the builtin, that a name belongs to: two questions should not be about the same."""
    return name.partition(".")[0]


def _fame(train: Sequence[Fact]) -> Callable[[str], float]:
    """How well known an entity is, as far as the graph can tell; a long name counts against it."""
    importers = Counter(fact.tail for fact in train if fact.relation == "imports")
    ties = Counter(fact.tail for fact in train if fact.relation in ("calls", "inherits_from", "overrides", "catches"))

    def fame(name: str) -> float:
        parts = name.split(".")
        module = max((importers[".".join(parts[:n])] for n in range(1, len(parts) + 1)), default=0)
        builtin = 40 if len(parts) == 1 and not importers[name] else 0
        return math.log1p(module + builtin) + math.log1p(ties[name]) - 0.7 * len(parts)

    return fame
