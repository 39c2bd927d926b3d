"""Old rows held near where they were, each with its own force."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from intarsia.knowledge.learning.parts import Growing, Part


class Pull(Part):
    """strength * sum over old rows of weight * ||row - row before||^2.

    What a subclass says is the weight: [old entity, 1 or width] and [old relation, 1 or width], or None for nothing."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength
        self.weights: tuple[Tensor, Tensor] | None = None

    def weigh(self, growing: Growing) -> tuple[Tensor, Tensor] | None:
        """The weights, as a snapshot begins."""
        raise NotImplementedError

    def begin(self, growing: Growing) -> None:
        self.weights = self.weigh(growing) if growing.index else None

    def accumulate(self, growing: Growing, batch: Any) -> float:
        if self.weights is None or not self.strength:
            return 0.0
        tables, before, loss = growing.tables, growing.before, 0.0
        for table, to, old, weight in (
            (tables.entities, tables.to_entities, before.entities, self.weights[0]),
            (tables.relations, tables.to_relations, before.relations, self.weights[1]),
        ):
            moved = table.detach()[: len(old)] - old
            pull = weight * moved
            loss += self.strength * float((pull * moved).sum())
            to[: len(old)].add_(pull, alpha=2 * self.strength)
        return loss
