"""The work of `knowledge.nearest`."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.asking.asking import about
from intarsia.knowledge.nearest import Nearest, NearestConfig, Neighbour
from intarsia.knowledge.store import KnowledgeGraph

SHARED_SHOWN = 3


def look(graph: KnowledgeGraph, config: NearestConfig) -> Nearest:
    """The nearest, by cosine."""
    asker = Asker.of(graph, config.snapshot)
    entity = asker.entity(config.entity)
    likeness = likenesses(asker, entity)
    likeness[entity] = -2
    best, places = likeness.topk(min(config.top, len(likeness) - 1))
    own = facts_of(asker, entity)
    rows = []
    for value, other in zip(best.tolist(), places.tolist(), strict=True):
        shared = sorted(own & facts_of(asker, other))
        told = [f"{asker.row_name(row)} {asker.graph.entities[end]}" for row, end in shared[:SHARED_SHOWN]]
        name = asker.graph.entities[other]
        rows.append(Neighbour(name=name, likeness=value, shared=told, count=len(shared), about=about(asker, name)))
    summary = f"Most like {config.entity}: {', '.join(row.name for row in rows[:3])}."
    return Nearest(
        title="Nearest", technique="knowledge.nearest", summary=summary, entity=config.entity, neighbours=rows
    )


def likenesses(asker: Asker, entity: int) -> Tensor:
    """Cosines of one entity's vector with those of all: [entity]."""
    vectors = normalize(asker.placed, dim=1)
    return vectors @ vectors[entity]


def facts_of(asker: Asker, entity: int) -> set[tuple[int, int]]:
    """(row of the relation, other end) of all known facts of an entity."""
    answers = asker.answers
    low, high = np.searchsorted(answers.keys, [entity * answers.stride, (entity + 1) * answers.stride])
    rows = answers.keys[low:high] - entity * answers.stride
    return set(zip(rows.tolist(), answers.tails[low:high].tolist(), strict=True))
