"""Questions that a fact answers: `Which exception does os.open raise?` is one relation of one entity, and needs no
model. What is told is in the graph, word for word, with the ids of its edges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intarsia.prompting.assistant.gathering import Evidence
from intarsia.prompting.assistant.replies import Reply, reply
from intarsia.prompting.assistant.wording import stem
from intarsia.prompting.data.store import Edge, Store
from intarsia.prompting.data.store.words import COMMON, telling

MOST = 12
"""Facts that an answer lists."""
_HOW = re.compile(r"\s*(how|why|show|explain|write|should)\b", re.I)


@dataclass(frozen=True)
class Told:
    """What the graph says: facts of one entity and one relation, those that were read and how many there are."""

    entity: str
    relation: str
    edges: tuple[Edge, ...]
    count: int

    @property
    def text(self) -> str:
        """As a sentence."""
        relation = self.relation.replace("_", " ")
        sure = [edge for edge in self.edges if edge.confidence is None]
        ends = [edge.tail if edge.head == self.entity else edge.head for edge in self.edges]
        more = f" and {self.count - len(ends)} more" if self.count > len(ends) else ""
        likely = "" if len(sure) == len(self.edges) else " (some of it predicted, not known)"
        if self.edges[0].head == self.entity:
            return f"{self.entity} {relation} {', '.join(ends)}{more}{likely}."
        return f"{', '.join(ends)}{more} ({relation} {self.entity}){likely}."


def told_by_facts(store: Store, evidence: Evidence, words: Mapping[str, Sequence[str]] = {}) -> Told | None:
    """The facts that answer a question, where it asks for one relation of something it names; else None.

    - words: by which a question asks for a relation, beside those of its name.

    Which end is asked for is told by the order of words: `does os.open raise` asks for what it raises, `raise OSError`
    for what does so. Questions how and why are not answered by a fact."""
    question = evidence.question
    if not evidence.entities or _HOW.match(question):
        return None
    for entity in sorted(evidence.entities, key=lambda name: name not in question):
        if entity not in question and _is_only_a_word(entity, question):
            continue
        at = question.casefold().find(entity.rpartition(".")[2].casefold())
        outside = _without(question, entity)
        edges = store.edges(entity)
        relations = {edge.relation for edge in edges}
        asked = [(place, r) for r in relations if (place := _place(outside, r, words.get(r, ()))) is not None]
        if not asked:
            continue
        place, relation = min(asked)
        from_here = [e for e in edges if e.relation == relation and e.head == entity]
        to_here = [e for e in edges if e.relation == relation and e.tail == entity]
        before = 0 <= at <= place
        found = (from_here or to_here) if before else (to_here or from_here)
        return Told(entity, relation, tuple(found[:MOST]), len(found))
    return None


def facts_reply(told: Told, evidence: Evidence, quote_words: int = 5) -> Reply:
    """The facts as an answer."""
    ids = " ".join(f"[E{edge.id}]" for edge in told.edges)
    return reply(f"{told.text} {ids}", "facts", told.edges, evidence, quote_words)


def _without(question: str, entity: str) -> str:
    """The question with the entity's name blanked, so that its own words ask for nothing."""
    return re.sub(re.escape(entity), lambda found: " " * len(found[0]), question, flags=re.I)


def _is_only_a_word(entity: str, question: str) -> bool:
    """Whether a question that has the last part of a dotted name means a word: `Which` and not shutil.which, `pattern`
    and not re.Pattern."""
    last = entity.rpartition(".")[2]
    return last != entity and (last.casefold() in COMMON or re.search(rf"\b{re.escape(last)}\b", question) is None)


def _place(question: str, relation: str, words: Sequence[str]) -> int | None:
    """Where a question asks for a relation: by a telling word of its name, or by one of the given words."""
    name = [word for word in relation.replace("_", " ").split() if telling(word) and len(word) > 3]
    stems = {stem(word.casefold()) for word in (*name, *words)}
    for found in re.finditer(r"\w+", question):
        if stem(found[0].casefold()) in stems:
            return found.start()
    return None
