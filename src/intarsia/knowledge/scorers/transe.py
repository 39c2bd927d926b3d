"""TransE: a relation is a step from head to tail. The base model of LKGE."""

from __future__ import annotations

from torch import Generator, Tensor
from torch.nn.functional import normalize

from intarsia.knowledge.scorers.scorer import Scorer, xavier
from intarsia.knowledge.scorers.similarity import L1


class TransE(Scorer):
    """-||n(h) + n(r) - n(t)||_1 with n(v) = v / ||v||_2."""

    name = "transe"
    source = "Bordes et al. 2013; rows normalised at use as in Cui et al. 2023 (LKGE)"
    similarity = L1()
    sharpness = 0.7

    def start_entities(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        return xavier(count, width, rows, generator)

    def place(self, entities: Tensor) -> Tensor:
        return normalize(entities, dim=-1)

    def ask(self, heads: Tensor, relations: Tensor) -> Tensor:
        return heads + normalize(relations, dim=-1)

    def reach(self, heads: Tensor, relations: Tensor) -> Tensor:
        return heads + relations

    def relate(self, heads: Tensor, tails: Tensor) -> Tensor:
        return tails - heads

    def settle_entities(self, estimates: Tensor, like: Tensor) -> Tensor:
        """As they are: estimates of a translation have the right length."""
        return estimates

    def settle_relations(self, estimates: Tensor, like: Tensor) -> Tensor:
        return estimates
