"""`Tables`: the vectors of entities and relations, with a place for their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from intarsia.knowledge.scorers import Scorer


@dataclass
class Tables:
    """- entities: [entity, width]; relations: [relation and inverse, width]. Leaves with a gradient of their shape."""

    entities: Tensor
    relations: Tensor

    def __post_init__(self) -> None:
        for table in (self.entities, self.relations):
            table.requires_grad_(True)
            table.grad = torch.zeros_like(table)

    @staticmethod
    def start(
        scorer: Scorer,
        entities: int,
        relations: int,
        width: int,
        generator: Generator,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Tables:
        """Random ones."""
        return Tables(
            scorer.start_entities(entities, width, entities, generator).to(device, dtype),
            scorer.start_relations(relations, width, relations, generator).to(device, dtype),
        )

    def grown(self, scorer: Scorer, entities: int, relations: int, generator: Generator) -> Tables:
        """With more rows: those that are there stay as they are, new ones are random."""
        had, like, width = len(self.entities), self.entities.detach(), self.entities.shape[1]
        new = scorer.start_entities(entities - had, width, entities, generator).to(like)
        both = torch.cat([self.entities.detach(), new])
        had = len(self.relations)
        new = scorer.start_relations(relations - had, width, relations, generator).to(like)
        return Tables(both, torch.cat([self.relations.detach(), new]))

    def clear(self) -> None:
        """Gradients back to zero."""
        self.to_entities.zero_()
        self.to_relations.zero_()

    @property
    def to_entities(self) -> Tensor:
        """The gradient for the entities, to be added to."""
        assert self.entities.grad is not None
        return self.entities.grad

    @property
    def to_relations(self) -> Tensor:
        """The gradient for the relations, to be added to."""
        assert self.relations.grad is not None
        return self.relations.grad

    def copy(self) -> Copy:
        """The values as they are now."""
        return Copy(self.entities.detach().clone(), self.relations.detach().clone())

    def set(self, copy: Copy) -> None:
        """Back to such values."""
        with torch.no_grad():
            self.entities.copy_(copy.entities)
            self.relations.copy_(copy.relations)


@dataclass(frozen=True)
class Copy:
    """Values of two tables, without gradients."""

    entities: Tensor
    relations: Tensor

    def first(self, entities: int, relations: int) -> Copy:
        """The first rows of both."""
        return Copy(self.entities[:entities], self.relations[:relations])
