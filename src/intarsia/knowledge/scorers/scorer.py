"""`Scorer`: how plausible a fact is, from the rows of its head, relation and tail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor

from intarsia.knowledge.scorers.similarity import Similarity


class Scorer(ABC):
    """One question, "given a head and a relation, which tail?", answered by comparing one vector with all entities.

    Every relation has a row of its own for its inverse, so that the question about heads is the same question.
    A scorer says how rows start, where an entity stands among candidates (`place`), which point a question asks for
    (`ask`), and how near two points are (`similarity`). `reach` and `relate` estimate a row from a fact's other two:
    what a new entity or relation starts from (embedding transfer), and what an autoencoder reconstructs.

    - sharpness: what scores are multiplied with before a softmax.
    - learning_rate: of Adam, where a softmax is the loss. n3: weight of the cubed moduli beside it (Lacroix 2018).
    - even: whether the width has two halves, real and imaginary parts."""

    name: ClassVar[str]
    source: ClassVar[str]
    similarity: ClassVar[Similarity]
    sharpness: ClassVar[float] = 1.0
    learning_rate: ClassVar[float] = 1e-3
    n3: ClassVar[float] = 0.0
    even: ClassVar[bool] = False

    @abstractmethod
    def start_entities(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        """First values of `count` rows of a table that has `rows` of them: [count, width]."""

    def start_relations(self, count: int, width: int, rows: int, generator: Generator) -> Tensor:
        """As `start_entities`, for relations."""
        return self.start_entities(count, width, rows, generator)

    def place(self, entities: Tensor) -> Tensor:
        """Entities as they are compared with queries: [n, width]."""
        return entities

    @abstractmethod
    def ask(self, heads: Tensor, relations: Tensor) -> Tensor:
        """The query of each question: [n, width], from heads as `place` gives them and rows of relations."""

    @abstractmethod
    def reach(self, heads: Tensor, relations: Tensor) -> Tensor:
        """An estimate of the tail's row, from rows of head and relation."""

    @abstractmethod
    def relate(self, heads: Tensor, tails: Tensor) -> Tensor:
        """An estimate of the relation's row, from rows of head and tail."""

    def settle_entities(self, estimates: Tensor, like: Tensor) -> Tensor:
        """Mean estimates of entities [n, width] as rows: here brought to the usual length of the rows `like`."""
        return _as_long_as(estimates, like)

    def settle_relations(self, estimates: Tensor, like: Tensor) -> Tensor:
        """As `settle_entities`, for relations."""
        return _as_long_as(estimates, like)

    def size(self, rows: Tensor) -> Tensor:
        """The absolute value of each component, in the shape of `rows` (complex moduli stand in both halves)."""
        if not self.even:
            return rows.abs()
        real, imaginary = rows.chunk(2, -1)
        modulus = (real.square() + imaginary.square()).sqrt()
        return torch.cat([modulus, modulus], -1)


def xavier(count: int, width: int, rows: int, generator: Generator) -> Tensor:
    """Normal with variance 2 / (rows + width)."""
    return torch.randn(count, width, generator=generator) * (2 / (rows + width)) ** 0.5


def _as_long_as(estimates: Tensor, like: Tensor) -> Tensor:
    if not len(like):
        return estimates
    return estimates * (like.norm(dim=-1).mean() / estimates.norm(dim=-1, keepdim=True).clamp_min(1e-12))
