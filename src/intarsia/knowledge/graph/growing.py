"""`GrowingGraph`: a graph that arrives in snapshots, as arrays of ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intarsia.data import Fact, FactSnapshot
from intarsia.data.snapshots import SPLITS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What is new at one time.

    - train, valid, test: [fact, 3] int64, ids of head, relation and tail, each fact once.
    - entities, relations: how many there are up to here, this snapshot included (relations without inverses)."""

    name: str
    train: Array
    valid: Array
    test: Array
    entities: int
    relations: int

    def split(self, name: str) -> Array:
        """The facts of a split."""
        return getattr(self, name)

    @property
    def rows(self) -> int:
        """Rows of the relation table: each relation and its inverse."""
        return 2 * self.relations


@dataclass(frozen=True, eq=False)
class GrowingGraph:
    """Snapshots over names whose ids never change: entity `i` is `entities[i]` for good.

    Ids go by first occurrence, over train, valid and test of the first snapshot, then of the second, and so on.
    Relation `k` has row `2k` in a table of relations, its inverse `2k + 1` (Cui et al. 2023, official code)."""

    entities: list[str]
    relations: list[str]
    snapshots: tuple[Snapshot, ...]
    descriptions: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.snapshots)

    @staticmethod
    def of(snapshots: Iterable[FactSnapshot]) -> GrowingGraph:
        """The graph of facts by name."""
        entities: dict[str, int] = {}
        relations: dict[str, int] = {}
        out: list[Snapshot] = []
        descriptions: dict[str, str] = {}
        for snapshot in snapshots:
            arrays = [_ids(getattr(snapshot, split), entities, relations) for split in SPLITS]
            out.append(Snapshot(snapshot.name, *arrays, entities=len(entities), relations=len(relations)))
            descriptions |= snapshot.descriptions
        return GrowingGraph(list(entities), list(relations), tuple(out), descriptions)

    def facts(self, upto: int, splits: Sequence[str] = SPLITS, since: int = 0) -> Array:
        """All facts of these splits in snapshots `since` to `upto`, in order: [fact, 3]."""
        return np.concatenate(
            [self.snapshots[i].split(split) for i in range(since, upto + 1) for split in splits]
            or [np.empty((0, 3), np.int64)]
        )

    def named(self, index: int) -> FactSnapshot:
        """The facts of a snapshot by name."""

        def facts(split: str) -> list[Fact]:
            rows = self.snapshots[index].split(split).tolist()
            return [Fact(self.entities[h], self.relations[r], self.entities[t]) for h, r, t in rows]

        return FactSnapshot(self.snapshots[index].name, *map(facts, SPLITS))

    def before(self, index: int) -> tuple[int, int]:
        """How many entities and rows of relations there were before snapshot `index`."""
        if index == 0:
            return 0, 0
        last = self.snapshots[index - 1]
        return last.entities, last.rows


def directed(facts: Array) -> Array:
    """Facts in both directions: (h, 2k, t) for all, then (t, 2k + 1, h) for all: [2 x fact, 3].

    Predicting a head is then predicting a tail under the inverse relation, and one question is enough."""
    forth = facts * np.array([1, 2, 1])
    back = forth[:, ::-1] + np.array([0, 1, 0])
    return np.concatenate([forth, back])


def _ids(facts: list[Fact], entities: dict[str, int], relations: dict[str, int]) -> Array:
    rows = np.empty((len(facts), 3), np.int64)
    for i, fact in enumerate(facts):
        head = entities.setdefault(fact.head, len(entities))
        relation = relations.setdefault(fact.relation, len(relations))
        rows[i] = head, relation, entities.setdefault(fact.tail, len(entities))
    return rows
