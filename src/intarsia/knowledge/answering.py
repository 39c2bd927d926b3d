"""Held-out questions with a graph's answers: what a person can check."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np

from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.grow import Answered
from intarsia.knowledge.store import KnowledgeGraph

MOST = 10
SHOWN = 3


def held_out_answers(graph: KnowledgeGraph, most: int = MOST, seed: int = 0) -> list[Answered]:
    """Questions whose answers were set aside, with what the graph says. Empty where nothing was.

    Of the installed Python's graph, those that a programmer knows the answer of; else some of the last snapshots'
    tests, of as many relations as there are."""
    asker = Asker.of(graph)
    if str(graph.source) == "python" or graph.note("source") == "python":
        from intarsia.data.python_graph import questions

        learned = [asker.graph.named(i) for i in range(asker.index + 1)]
        asked = [(q.text, q.head, q.relation, q.answers) for q in questions(learned, most)]
    else:
        asked = list(_some(asker, most, seed))
    out = []
    for text, head, relation, right in asked:
        right = [name for name in right if name in asker.ids]
        if head not in asker.ids or relation not in asker.relation_ids or not right:
            continue  # it comes with a snapshot that is not learned yet
        out.append(_answered(asker, text, head, relation, right))
    return out


def _some(asker: Asker, most: int, seed: int) -> Iterable[tuple[str, str, str, list[str]]]:
    """Test facts of the latest snapshots, each relation in turn."""
    names, relations = asker.graph.entities, asker.graph.relations
    by_relation: dict[int, list[tuple[int, int, int]]] = {}
    for i in range(asker.index, -1, -1):
        rows = asker.graph.snapshots[i].test.tolist()
        random.Random(seed + i).shuffle(rows)
        for head, relation, tail in rows:
            by_relation.setdefault(relation, []).append((head, relation, tail))
    turn = 0
    while by_relation and turn < most:
        for relation in list(by_relation):
            if turn == most:
                break
            head, _, tail = by_relation[relation].pop(0)
            if not by_relation[relation]:
                del by_relation[relation]
            turn += 1
            yield f"{names[head]} {relations[relation]} ?", names[head], relations[relation], [names[tail]]


def _answered(asker: Asker, text: str, head: str, relation: str, right: list[str]) -> Answered:
    entity, row = asker.entity(head), asker.relation(relation)
    spare = np.array([asker.entity(name) for name in right])
    said = [answer for answer in asker.ask(entity, row, SHOWN, spare) if not answer.known]
    chances, _ = asker.chances(entity, row, spare)
    best = max(float(chances[i]) for i in spare)
    return Answered(
        question=text, right=right, said=[answer.entity for answer in said],
        confidence=[answer.confidence or 0.0 for answer in said], rank=1 + int((chances > best).sum()),
    )  # fmt: skip
