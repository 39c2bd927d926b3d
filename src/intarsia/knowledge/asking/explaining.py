"""The work of `knowledge.explain`."""

from __future__ import annotations

import numpy as np

from intarsia.errors import BadInput
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.asking.likeness import likenesses
from intarsia.knowledge.asking.paths import paths_between
from intarsia.knowledge.asking.supports import supports
from intarsia.knowledge.explain import ExplainConfig, Kin, PredictionExplained
from intarsia.knowledge.store import KnowledgeGraph


def look(graph: KnowledgeGraph, config: ExplainConfig) -> PredictionExplained:
    """All three kinds of reasons."""
    asker = Asker.of(graph, config.snapshot)
    head, row = asker.entity(config.head), asker.relation(config.relation)
    if config.tail is not None:
        tail = asker.entity(config.tail)
    else:
        likely = [answer for answer in asker.ask(head, row, 1) if not answer.known]
        if not likely:
            raise BadInput(f"everything is a known answer of '{config.head} {config.relation} ?': give --tail")
        tail = asker.entity(likely[0].entity)
    names = asker.graph.entities
    chances, _ = asker.chances(head, row, np.array([tail]))
    found = PredictionExplained(
        title="Explained", technique="knowledge.explain", fact=f"{names[head]} {config.relation} {names[tail]}",
        known=tail in asker.answers.to(head, row), confidence=float(chances[tail]),
        place=1 + int((chances > chances[tail]).sum()),
        supports=supports(asker, head, row, tail, config.facts)[: config.top],
        paths=paths_between(asker, head, row, tail, config.longest)[: config.top],
        kin=_kin(asker, head, row, tail, config.top),
    )  # fmt: skip
    return found.model_copy(update={"summary": _told(found)})


def _kin(asker: Asker, head: int, row: int, tail: int, top: int) -> list[Kin]:
    """Entities of which the same answer was learned, the most like the head first."""
    others = np.setdiff1d(asker.learned.to(tail, row ^ 1), [head])
    if not len(others):
        return []
    near = likenesses(asker, head)[others]
    names, relation = asker.graph.entities, asker.row_name(row)
    order = near.argsort(descending=True)[:top].tolist()
    return [
        Kin(name=names[others[i]], likeness=float(near[i]), fact=f"{names[others[i]]} {relation} {names[tail]}")
        for i in order
    ]


def _told(found: PredictionExplained) -> str:
    state = "is known" if found.known else "is not known"
    parts = [f"{found.fact}: {state}; confidence {found.confidence:.1%}, place {found.place}."]
    if found.supports and found.supports[0].effect > 0:
        first = found.supports[0]
        parts.append(f"Most of it comes from '{first.fact}': without that, {first.without:.1%}.")
    if found.paths and found.paths[0].holds:
        first_path = found.paths[0]
        parts.append(f"The best way there: {first_path.rule}, which holds for {first_path.holds:.0%} of its pairs.")
    return " ".join(parts)
