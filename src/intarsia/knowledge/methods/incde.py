"""IncDE: new facts in an order that starts from what is known, and vectors held near where they just were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intarsia.knowledge.graph.growing import directed
from intarsia.knowledge.learning.adam import adam
from intarsia.knowledge.learning.centrality import centralities, distances
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.objectives.corrupting import L1Margin, Margin


class Ordered:
    """Facts in layers: first those that touch known entities, then outwards; inside a layer the most central first.

    A fact's importance is max of its entities' degree centralities plus the betweenness of its relation, that of the
    relation being the mean of its facts' entities'. Layers are cut to `layer` facts, and never shuffled (Liu et al.
    2024, section on hierarchical ordering). The first snapshot is shuffled."""

    def __init__(self, settings: Settings):
        self.margin = L1Margin() if settings.scorer == "transe" else Margin()
        self.layer = int(settings.option("layer"))
        self.order: tuple[int, Tensor] | None = None

    def batches(self, growing: Growing) -> Iterator[Tensor]:
        if not growing.index:
            yield from self.margin.batches(growing)
            return
        if self.order is None or self.order[0] != growing.index:
            facts = growing.graph.snapshots[growing.index].train
            ordered = directed_in_turn(facts[hierarchy(facts, growing.entities, growing.old_entities)])
            self.order = growing.index, torch.from_numpy(ordered).to(growing.device)
        facts = self.order[1]
        for start in range(0, len(facts), self.layer):
            yield facts[start : start + self.layer]

    def accumulate(self, growing: Growing, batch: Tensor) -> float:
        return self.margin.accumulate(growing, batch)


def hierarchy(facts: np.ndarray[Any, Any], entities: int, known: int) -> np.ndarray[Any, Any]:
    """The order of facts [fact, 3]: places in the array given."""
    degree, between = centralities(facts, entities)
    far = distances(facts, entities, known)
    layer = np.minimum(far[facts[:, 0]], far[facts[:, 2]])
    of_fact = (between[facts[:, 0]] + between[facts[:, 2]]) / 2
    number = np.bincount(facts[:, 1])
    of_relation = np.bincount(facts[:, 1], of_fact) / np.maximum(number, 1)
    importance = np.maximum(degree[facts[:, 0]], degree[facts[:, 2]]) + of_relation[facts[:, 1]]
    return np.lexsort([-importance, layer])


def directed_in_turn(facts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Both directions of each fact, next to each other."""
    both = directed(facts)
    return both.reshape(2, -1, 3).transpose(1, 0, 2).reshape(-1, 3)


class Distilled(Part):
    """strength * sum over entities of lambda * Huber(x, x of the layer before), old entities against where the snapshot
    began.

    The paper: lambda = (betweenness + degree centrality) x a learned weight. The released code, whose figures are the
    published ones, has lambda 1 for old entities, all of them in every layer, and the paper's for new ones alone; so
    has this. An entity that no layer had yet is free. In the first epochs old rows are frozen and nothing is held
    (two-stage training)."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.frozen, self.rate = int(settings.option("frozen_epochs")), settings.learning_rate or 1e-4
        self.strength = settings.option("strength")

    def begin(self, growing: Growing) -> None:
        if not growing.index:
            return
        facts = growing.graph.snapshots[growing.index].train
        degree, between = centralities(facts, growing.entities)
        self.importance = torch.from_numpy(degree + between).to(growing.tables.entities)
        self.importance[: growing.old_entities] = 1
        self.state["weights"] = torch.ones_like(self.importance)
        self.state["last"] = growing.tables.entities.detach().clone()
        self.state["seen"] = torch.arange(growing.entities, device=growing.device) < growing.old_entities

    def accumulate(self, growing: Growing, batch: Any) -> float:
        if not growing.index:
            return 0.0
        self.here = batch[:, [0, 2]].unique()
        if growing.epoch < self.frozen:
            return 0.0
        old = torch.arange(growing.old_entities, device=growing.device)
        new = self.here[self.here >= growing.old_entities]
        use = torch.cat([old, new[self.state["seen"][new]]])
        apart = growing.tables.entities.detach()[use] - self.state["last"][use]
        huber = torch.where(apart.abs() < 1, apart.square() / 2, apart.abs() - 0.5).sum(1)
        weights, learned = self.strength * self.importance[use], self.state["weights"][use]
        growing.tables.to_entities.index_add_(0, use, (weights * learned)[:, None] * apart.clamp(-1, 1))
        to_learned = torch.zeros_like(self.importance).index_add_(0, use, weights * huber)
        to_learned[: growing.old_entities] = 0
        adam(self.state, {"weights": to_learned}, self.rate)
        self.state["weights"].clamp_min_(0)  # this loss alone drives them down; below zero they would push away
        return float((weights * learned * huber).sum())

    def adjust(self, growing: Growing) -> None:
        if growing.index and growing.epoch < self.frozen:
            growing.tables.to_entities[: growing.old_entities] = 0
            growing.tables.to_relations[: growing.old_relations] = 0

    def stepped(self, growing: Growing) -> None:
        if growing.index:
            new = self.here[self.here >= growing.old_entities]
            self.state["last"][new] = growing.tables.entities.detach()[new]
            self.state["seen"][new] = True

    def end(self, growing: Growing) -> None:
        self.state.clear()


INCDE = Method(
    name="incde",
    summary="new facts from the known outwards, vectors held to the layer before, old rows frozen at first",
    source="Liu et al. 2024 (IncDE)",
    family="distillation",
    settings=Settings(batch_size=1024, patience=5, forgive=10**6, least_epochs=31),
    parts=lambda settings: [Distilled(settings)],
    objective=Ordered,
    options={
        "layer": Option(1024, "facts in a layer"),
        "frozen_epochs": Option(20, "epochs in which old rows do not move"),
        "strength": Option(0.01, "weight of the distillation"),
    },
)
