"""Known answers of every question (entity, relation), with the snapshot that brought them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intarsia.data.snapshots import SPLITS
from intarsia.knowledge.graph.growing import GrowingGraph, directed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Answers:
    """Facts in both directions, sorted by question, so that any filter is a mask over a short run of them.

    - keys: [fact] entity x stride + row of the relation, ascending; tails: [fact] the answer.
    - since: [fact] the snapshot that has the fact; held: [fact] 0 train, 1 valid, 2 test."""

    keys: Array
    tails: Array
    since: Array
    held: Array
    stride: int

    @staticmethod
    def of(graph: GrowingGraph, upto: int | None = None, splits: tuple[str, ...] = SPLITS) -> Answers:
        """The answers that the facts of snapshots up to `upto` give (default: all)."""
        upto = len(graph) - 1 if upto is None else upto
        parts, since, held = [], [], []
        for i in range(upto + 1):
            for split in splits:
                both = directed(graph.snapshots[i].split(split))
                parts.append(both)
                since.append(np.full(len(both), i, np.int32))
                held.append(np.full(len(both), SPLITS.index(split), np.int8))
        facts = np.concatenate(parts)
        stride = graph.snapshots[upto].rows
        keys = facts[:, 0] * stride + facts[:, 1]
        order = np.argsort(keys, kind="stable")
        return Answers(
            keys[order],
            facts[order, 2].astype(np.int32),
            np.concatenate(since)[order],
            np.concatenate(held)[order],
            stride,
        )

    def key(self, entities: Array, relations: Array) -> Array:
        """The keys of questions."""
        return entities * self.stride + relations

    def range(self, entities: Array, relations: Array) -> tuple[Array, Array]:
        """Where the known answers of each question begin and end."""
        keys = self.key(entities, relations)
        return np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")

    def to(self, entity: int, relation: int) -> Array:
        """All known answers of one question."""
        low, high = self.range(np.array([entity]), np.array([relation]))
        return self.tails[low[0] : high[0]]


@dataclass(frozen=True, eq=False)
class Questions:
    """Distinct questions with all their answers in a set of facts: what a softmax over all entities trains on.

    - entities, relations: [question]; starts: [question + 1]; tails: [fact] the answers, question after question."""

    entities: Array
    relations: Array
    starts: Array
    tails: Array

    def __len__(self) -> int:
        return len(self.entities)

    @staticmethod
    def of(facts: Array, stride: int) -> Questions:
        """Group directed facts [fact, 3] by question. `stride`: rows of the relation table."""
        keys = facts[:, 0] * stride + facts[:, 1]
        order = np.argsort(keys, kind="stable")
        distinct, first = np.unique(keys[order], return_index=True)
        return Questions(distinct // stride, distinct % stride, np.append(first, len(order)), facts[order, 2])

    def take(self, which: Array) -> Questions:
        """Some of the questions, in the order given."""
        counts = self.starts[which + 1] - self.starts[which]
        tails = self.tails[runs(self.starts, which)]
        ends = np.cumsum(counts)
        return Questions(self.entities[which], self.relations[which], np.append(0, ends), tails)


def runs(starts: Array, which: Array) -> Array:
    """The places of some of the runs starts[i] : starts[i + 1], one after the other."""
    counts = starts[which + 1] - starts[which]
    ends = np.cumsum(counts)
    inside = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    return np.repeat(starts[which], counts) + inside
