"""RotatE: a relation turns every complex component of the head by an angle."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from intarsia.knowledge.scorers.scorer import Scorer
from intarsia.knowledge.scorers.similarity import Modulus, complex_product, conjugate

RANGE = 11.0  # margin 9 and 2, as in the paper's code: sum of moduli that a random start has at most


class RotatE(Scorer):
    """-sum of |h * e^(i angle) - t|. Angles stand in the first half of a relation's row; the second is unused."""

    name = "rotate"
    source = "Sun et al. 2019"
    similarity = Modulus()
    sharpness = 1.0
    even = True

    def start_entities(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        return (torch.rand(count, width, generator=generator) * 2 - 1) * (2 * RANGE / width)

    def start_relations(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        return (torch.rand(count, width, generator=generator) * 2 - 1) * math.pi

    def ask(self, heads: Tensor, relations: Tensor) -> Tensor:
        angles = relations.chunk(2, -1)[0]
        return complex_product(heads, torch.cat([angles.cos(), angles.sin()], -1))

    def reach(self, heads: Tensor, relations: Tensor) -> Tensor:
        return self.ask(heads, relations)

    def relate(self, heads: Tensor, tails: Tensor) -> Tensor:
        """A complex number, whose angle counts: `settle_relations` reads it, after a mean over facts was taken."""
        return complex_product(conjugate(heads), tails)

    def settle_entities(self, estimates: Tensor, like: Tensor) -> Tensor:
        """As they are: turning changes no length."""
        return estimates

    def settle_relations(self, estimates: Tensor, like: Tensor) -> Tensor:
        real, imaginary = estimates.chunk(2, -1)
        return torch.cat([torch.atan2(imaginary, real), torch.zeros_like(real)], -1)
