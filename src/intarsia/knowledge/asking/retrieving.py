"""The work of `knowledge.retrieve`."""

from __future__ import annotations

from collections import Counter

import numpy as np

from intarsia.errors import BadInput
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.asking.linking import mentions
from intarsia.knowledge.asking.walking import ranked
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.retrieve import Linked, RetrieveConfig, Retrieved, Subgraph
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.knowledge.store.names import near_names

OTHERS_SHOWN = 3


def look(graph: KnowledgeGraph, config: RetrieveConfig) -> Subgraph:
    """Link, walk, and take the facts with most weight."""
    growing = graph.growing()
    facts = growing.facts(len(growing) - 1)
    degrees = Counter(facts[:, 0].tolist()) + Counter(facts[:, 2].tolist())
    found = mentions(growing, config.text, degrees)
    if not found:
        raise BadInput(f"the text names no entity of the graph{_hint(growing, config.text)}")
    names, relations = growing.entities, growing.relations
    start = [mention.entities[0] for mention in found]
    chosen = ranked(facts, len(names), start, config.hops, config.most)
    rows = [
        Retrieved(head=names[h], relation=relations[r], tail=names[t], weight=weight)
        for (h, r, t), weight in zip(facts[chosen[0]].tolist(), chosen[1].tolist(), strict=True)
    ]
    if config.predicted:
        rows += predicted(Asker.of(graph), start, config)
    linked = [
        Linked(
            words=mention.words, entity=names[mention.entities[0]],
            about=" ".join(growing.descriptions.get(names[mention.entities[0]], "").split()),
            others=[names[i] for i in mention.entities[1 : 1 + OTHERS_SHOWN]],
        )
        for mention in found
    ]  # fmt: skip
    count = "1 entity" if len(linked) == 1 else f"{len(linked)} entities"
    summary = f"{count} in the text: {', '.join(row.entity for row in linked[:5])}; {len(rows)} facts."
    return Subgraph(
        title="Retrieved", technique="knowledge.retrieve", text=config.text, linked=linked, facts=rows, summary=summary
    )


def predicted(asker: Asker, start: list[int], config: RetrieveConfig) -> list[Retrieved]:
    """Likely facts of the entities, of the relations they have in either direction."""
    out = []
    names = asker.graph.entities
    for entity in start:
        if entity >= len(asker.entities):
            continue  # it came after what was learned
        learned = asker.learned
        low, high = np.searchsorted(learned.keys, [entity * learned.stride, (entity + 1) * learned.stride])
        for row in np.unique(learned.keys[low:high] - entity * learned.stride).tolist():
            for answer in asker.ask(entity, row, 2):
                if answer.known or (answer.confidence or 0) < config.least_confidence:
                    continue
                ends = (answer.entity, names[entity]) if row % 2 else (names[entity], answer.entity)
                relation = asker.graph.relations[row // 2]
                out.append(
                    Retrieved(head=ends[0], relation=relation, tail=ends[1], weight=0.0, confidence=answer.confidence)
                )
    return sorted(out, key=lambda fact: -(fact.confidence or 0))[: config.predicted]


def _hint(growing: GrowingGraph, text: str) -> str:
    known = {name: i for i, name in enumerate(growing.entities)}
    words = sorted({word.strip(".,;:?!()'\"") for word in text.split()}, key=len, reverse=True)[:4]
    near = list(dict.fromkeys(name for word in words if len(word) > 3 for name in near_names(word, known, 2)))
    return f"; near: {', '.join(near[:4])}" if near else ""
