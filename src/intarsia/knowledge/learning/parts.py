"""What a method is made of, and what its parts see.

A method is a loss on the new facts, and parts around it that keep what was known: a penalty, a memory, an autoencoder,
frozen rows. Every part has the same few moments in one loop (`learner.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from intarsia.knowledge.evaluation.ranking import Ranker
from intarsia.knowledge.graph.growing import GrowingGraph, directed
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.tables import Copy, Tables
from intarsia.knowledge.scorers import Scorer


@dataclass
class Growing:
    """One snapshot while it is learned.

    - tables: all rows there are by now; parts add gradients to `tables.to_entities` and `tables.to_relations`.
    - before: the old rows as they were when the snapshot began; old_entities, old_relations: how many they are.
    - facts: [fact, 3] int64, the facts that are learned, in both directions.
    - graph: for facts of earlier snapshots, where a method may use them; `index` says which snapshot this is.
    - random: numbers of the run's own, on the CPU."""

    graph: GrowingGraph
    index: int
    scorer: Scorer
    settings: Settings
    tables: Tables
    before: Copy
    old_entities: int
    old_relations: int
    facts: Tensor
    random: Generator
    epoch: int = 0

    @property
    def device(self) -> torch.device:
        return self.tables.entities.device

    @property
    def entities(self) -> int:
        """How many there are by now."""
        return len(self.tables.entities)

    @property
    def relations(self) -> int:
        """Rows of relations by now."""
        return len(self.tables.relations)

    def new_facts(self) -> np.ndarray[Any, Any]:
        """The snapshot's own training facts, in both directions: [fact, 3]."""
        return directed(self.graph.snapshots[self.index].train)

    def shuffled(self, count: int) -> Tensor:
        """A random order of so many things."""
        return torch.randperm(count, generator=self.random)


class Part:
    """A part of a method. Every moment may be left out.

    What a part carries from one snapshot to the next stands in `state`, tensors by name, which are saved and restored
    with the run; what it makes in `begin` is made again after a restart."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def begin(self, growing: Growing) -> None:
        """The tables have grown; nothing is learned yet."""

    def accumulate(self, growing: Growing, batch: Any) -> float:
        """Add a term's gradient, and give its value, as one batch is learned."""
        return 0.0

    def adjust(self, growing: Growing) -> None:
        """All gradients are there, the step is not taken yet."""

    def stepped(self, growing: Growing) -> None:
        """The step was taken."""

    def improved(self, growing: Growing) -> None:
        """This epoch is the best so far. The tables are kept without a part's doing; what is its own is not."""

    def end(self, growing: Growing) -> None:
        """The snapshot is learned, the tables of the best epoch are there again."""

    def ranker(self, growing: Growing) -> Ranker | None:
        """Who answers questions, where that is not a scorer with its tables."""
        return None


class Objective(Protocol):
    """The loss on facts, and how they come in batches."""

    def batches(self, growing: Growing) -> Iterable[Any]:
        """One epoch."""
        ...

    def accumulate(self, growing: Growing, batch: Any) -> float:
        """Add the gradient of one batch and give its loss."""
        ...


@dataclass(frozen=True)
class Option:
    """A setting that one method alone has."""

    value: float
    about: str


@dataclass(frozen=True)
class Method:
    """A way to learn a growing graph.

    - keeps: whether a snapshot begins with the vectors of the one before; else all start afresh.
    - learns: the snapshot's own facts, or all so far. start: new rows at random, or estimated from the new facts.
    - parts: makes its parts; objective: makes the loss (default: the one that `settings.loss` names).
    - relearns: whether anything is learned after the first snapshot."""

    name: str
    summary: str
    source: str
    family: str
    settings: Settings = field(default_factory=Settings)
    keeps: bool = True
    learns: Literal["new", "all"] = "new"
    start: Literal["random", "transfer"] = "random"
    relearns: bool = True
    parts: Callable[[Settings], list[Part]] = lambda settings: []
    objective: Callable[[Settings], Objective] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)

    def defaults(self) -> Settings:
        """Its settings, its own options among them."""
        return self.settings.with_(options={name: option.value for name, option in self.options.items()})
