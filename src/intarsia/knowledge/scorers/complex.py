"""ComplEx: DistMult over complex numbers, where a relation need not be symmetric."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from intarsia.knowledge.scorers.scorer import Scorer
from intarsia.knowledge.scorers.similarity import Dot, complex_product, conjugate


class ComplEx(Scorer):
    """Re(sum of h * r * conj(t)). The first half of a row holds real parts, the second imaginary ones."""

    name = "complex"
    source = "Trouillon et al. 2016; inverse relations as in Lacroix et al. 2018"
    similarity = Dot()
    learning_rate = 1e-2
    n3 = 0.03
    even = True

    def start_entities(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        return torch.randn(count, width, generator=generator) * 0.05

    def ask(self, heads: Tensor, relations: Tensor) -> Tensor:
        return complex_product(heads, relations)

    def reach(self, heads: Tensor, relations: Tensor) -> Tensor:
        return complex_product(heads, relations)

    def relate(self, heads: Tensor, tails: Tensor) -> Tensor:
        return complex_product(conjugate(heads), tails)
