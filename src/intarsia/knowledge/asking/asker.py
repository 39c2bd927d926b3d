"""`Asker`: a learned graph that answers questions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.knowledge.graph.answers import Answers
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.scorers import Scorer, scorer_called
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.models.saved import Saved

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answer:
    """An entity as the answer of a question.

    - confidence: the calibrated chance that it is the answer, if there is one that is not known yet; None for a known
      one. rank: its place, 1 being the best, among all that are not known; None for a known one."""

    entity: str
    confidence: float | None
    rank: int | None
    known: bool


class Asker:
    """The vectors of one learned snapshot, with the facts up to there.

    A question is a head and a relation, asking for tails; or a relation and a tail, asking for heads."""

    def __init__(self, graph: GrowingGraph, saved: Saved, index: int):
        self.graph, self.index = graph, index
        self.scorer: Scorer = scorer_called(saved.note["scorer"])
        self.entities, self.relations = saved.tensors["entities"], saved.tensors["relations"]
        self.temperature = float(saved.note.get("temperature") or 1.0)
        self.calibrated = saved.note.get("temperature") is not None
        self.placed = self.scorer.place(self.entities).contiguous()

    @staticmethod
    def of(graph: KnowledgeGraph, index: int | None = None) -> Asker:
        """The last learned snapshot of a graph, or the one at `index`. Raises `BadInput` where nothing is learned."""
        learned = graph.learned
        if index is not None and not 0 <= index < learned:
            there = f"there are 0 to {learned - 1}" if learned else "nothing is learned yet"
            raise BadInput(f"{graph}: no learned snapshot {index}; {there}")
        index = learned - 1 if index is None else index
        return Asker(graph.growing(), graph.state(index), index)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Entities by name."""
        return {name: i for i, name in enumerate(self.graph.entities[: len(self.entities)])}

    @cached_property
    def relation_ids(self) -> dict[str, int]:
        """Relations by name."""
        return {name: i for i, name in enumerate(self.graph.relations[: len(self.relations) // 2])}

    @cached_property
    def answers(self) -> Answers:
        """What is known up to here, held-out facts included."""
        return Answers.of(self.graph, self.index)

    @cached_property
    def learned(self) -> Answers:
        """What was learned up to here."""
        return Answers.of(self.graph, self.index, ("train",))

    def entity(self, name: str) -> int:
        """The id of an entity; `BadInput` with near names, or that it came later than what was learned."""
        if name not in self.ids and name in self.graph.entities:
            raise BadInput(f"'{name}' is not learned as of snapshot {self.index}: it came later (`knowledge grow`)")
        return _named(self.ids, "entity", name)

    def relation(self, name: str) -> int:
        """The row of a relation (an inverse is one more); `BadInput` with near names."""
        return 2 * _named(self.relation_ids, "relation", name)

    def row_name(self, row: int) -> str:
        """A relation's name by its row; an inverse has an arrow."""
        name = self.graph.relations[row // 2]
        return f"{name}⁻¹" if row % 2 else name

    def logits(self, entities: Tensor, rows: Tensor) -> Tensor:
        """What goes into the softmax over all entities, for questions [n]: [n, entity], temperature included."""
        queries = self.scorer.ask(self.placed[entities], self.relations[rows])
        scores = self.scorer.similarity.pairs(queries.contiguous(), self.placed)
        return scores * (self.scorer.sharpness / self.temperature)

    @cached_property
    def loops(self) -> set[int]:
        """Relations by which an entity was learned to be joined with itself."""
        learned = self.learned
        own = learned.keys[learned.keys // learned.stride == learned.tails]
        return set((own % learned.stride // 2).tolist())

    def left_out(self, entity: int, row: int, spare: Array | None = None) -> Array:
        """What is no candidate for an answer: known ones, and the entity itself where the relation has no loops.

        - spare: answers that count as not known."""
        known = self.answers.to(entity, row)
        out = known if row // 2 in self.loops else np.append(known, entity)
        return np.unique(out if spare is None else np.setdiff1d(out, spare))

    def chances(self, entity: int, row: int, spare: Array | None = None) -> tuple[Tensor, Array]:
        """(chance of each entity to be the one answer that is not known yet, [entity]; what is left out)."""
        out = self.left_out(entity, row, spare)
        logits = self.logits(torch.tensor([entity]), torch.tensor([row]))[0]
        logits[torch.from_numpy(out).long()] = -torch.inf
        return logits.softmax(0), out

    def ask(self, entity: int, row: int, top: int = 10, spare: Array | None = None) -> list[Answer]:
        """The best answers that are not known, the most likely first; before them those that are known."""
        chances, out = self.chances(entity, row, spare)
        count = min(top, len(chances) - len(out))
        best, places = chances.topk(count)
        names, known = self.graph.entities, np.intersect1d(out, self.answers.to(entity, row))
        told = [Answer(names[i], None, None, True) for i in known.tolist()]
        found = zip(best.tolist(), places.tolist(), strict=True)
        return told + [Answer(names[i], p, n, False) for n, (p, i) in enumerate(found, 1)]


def _named(ids: dict[str, int], kind: str, name: str) -> int:
    from intarsia.knowledge.store.names import unknown

    if name not in ids:
        raise unknown(ids, kind, name)
    return ids[name]
