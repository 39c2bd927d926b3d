"""The work of `knowledge.ask`."""

from __future__ import annotations

import numpy as np
import torch

from intarsia.errors import BadInput
from intarsia.knowledge.ask import AskConfig, Asked, AskedFor
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.store import KnowledgeGraph

KNOWN_SHOWN = 20


def look(graph: KnowledgeGraph, config: AskConfig) -> Asked:
    """Answer in the one of four ways that the config asks for."""
    given = (config.head is not None, config.relation is not None, config.tail is not None)
    if sum(given) < 2:
        raise BadInput("knowledge.ask: give two of --head, --relation and --tail, or all three")
    asker = Asker.of(graph, config.snapshot)
    match given:
        case (True, True, False):
            found = _entities(asker, config.head or "", config.relation or "", False, config.top)
        case (False, True, True):
            found = _entities(asker, config.tail or "", config.relation or "", True, config.top)
        case (True, False, True):
            found = _relations(asker, config.head or "", config.tail or "", config.top)
        case _:
            found = _whether(asker, config.head or "", config.relation or "", config.tail or "")
    return found.model_copy(update={"title": "Asked", "technique": "knowledge.ask"})


def _entities(asker: Asker, given: str, relation: str, inverse: bool, top: int) -> Asked:
    entity, row = asker.entity(given), asker.relation(relation) + inverse
    answers = asker.ask(entity, row, top)
    known = [answer for answer in answers if answer.known]
    likely = [answer for answer in answers if not answer.known]
    rows = [
        AskedFor(name=a.entity, known=a.known, confidence=a.confidence, place=a.rank, about=about(asker, a.entity))
        for a in [*known[:KNOWN_SHOWN], *likely]
    ]
    question = f"? {relation} {given}" if inverse else f"{given} {relation} ?"
    best = f"most likely beside these: {likely[0].entity} ({likely[0].confidence:.0%})" if likely else "nothing else"
    told = f"Known: {', '.join(a.entity for a in known[:5])}{' …' if len(known) > 5 else ''}; {best}." if known else ""
    return Asked(
        question=question, answers=rows, known=len(known), 
        candidates=len(asker.entities) - len(asker.left_out(entity, row)),
        calibrated=asker.calibrated, summary=told or f"Nothing is known of this; {best.replace(' beside these', '')}.",
    )  # fmt: skip


def _relations(asker: Asker, head: str, tail: str, top: int) -> Asked:
    """Relations by how likely they make the tail, of all entities; known ones first."""
    h, t = asker.entity(head), asker.entity(tail)
    rows, spare = range(0, len(asker.relations), 2), np.array([t])
    # As for the whole fact: other answers that are known do not compete.
    chances = torch.stack([asker.chances(h, row, spare)[0][t] for row in rows])
    order = chances.argsort(descending=True).tolist()
    known = {row // 2 for row in rows if t in asker.answers.to(h, row)}
    names = asker.graph.relations
    told = [AskedFor(name=names[i], known=True) for i in sorted(known)]
    likely = [i for i in order if i not in known][:top]
    told += [AskedFor(name=names[i], confidence=float(chances[i]), place=n) for n, i in enumerate(likely, 1)]
    if known:
        summary = f"Known: {', '.join(names[i] for i in sorted(known))}."
    else:
        summary = f"No fact joins them; the likeliest is {names[likely[0]]} ({float(chances[likely[0]]):.1%})."
    return Asked(
        question=f"{head} ? {tail}", answers=told, known=len(known), candidates=len(rows) - len(known),
        calibrated=asker.calibrated, summary=summary,
    )  # fmt: skip


def _whether(asker: Asker, head: str, relation: str, tail: str) -> Asked:
    h, row, t = asker.entity(head), asker.relation(relation), asker.entity(tail)
    question, known = f"{head} {relation} {tail}", t in asker.answers.to(h, row)
    chances, others = asker.chances(h, row, np.array([t]))
    place = 1 + int((chances > chances[t]).sum())
    told = AskedFor(name=tail, known=known, confidence=float(chances[t]), place=place, about=about(asker, tail))
    where = f"its confidence is {float(chances[t]):.1%}, place {place} of {len(chances) - len(others):,}"
    return Asked(
        question=question, answers=[told], known=int(known), candidates=len(chances) - len(others),
        calibrated=asker.calibrated,
        summary=f"Known; left out of what is known, {where}." if known else f"Not known; {where}.",
    )  # fmt: skip


def about(asker: Asker, name: str, most: int = 80) -> str:
    text = " ".join(asker.graph.descriptions.get(name, "").split())
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + " …"
