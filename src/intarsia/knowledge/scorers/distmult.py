"""DistMult: a relation weighs the components that head and tail share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from intarsia.knowledge.scorers.scorer import Scorer
from intarsia.knowledge.scorers.similarity import Dot


class DistMult(Scorer):
    """sum of h * r * t. Symmetric in head and tail but for the rows of inverse relations."""

    name = "distmult"
    source = "Yang et al. 2015; inverse relations as in Lacroix et al. 2018"
    similarity = Dot()
    learning_rate = 1e-2
    n3 = 0.03

    def start_entities(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        return torch.randn(count, width, generator=generator) * 0.05

    def ask(self, heads: Tensor, relations: Tensor) -> Tensor:
        return heads * relations

    def reach(self, heads: Tensor, relations: Tensor) -> Tensor:
        return heads * relations

    def relate(self, heads: Tensor, tails: Tensor) -> Tensor:
        return heads * tails
