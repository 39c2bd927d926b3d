"""How near a query lies to vectors: minus the L1 distance, the dot product, or minus the sum of complex moduli."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from intarsia.knowledge import kernels


class Similarity(Protocol):
    """Higher is nearer. All pairs at once, with the pull that a gradient over them has on both sides."""

    def pairs(self, queries: Tensor, vectors: Tensor) -> Tensor:
        """[n, m] of queries [n, width] and vectors [m, width]."""
        ...

    def pull(self, queries: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of sum(weights * pairs) for queries and for vectors."""
        ...

    def rows(self, queries: Tensor, vectors: Tensor) -> Tensor:
        """Of each query to its own vector; shapes are broadcast, the last dimension is the width. Differentiable."""
        ...


class L1:
    def pairs(self, queries: Tensor, vectors: Tensor) -> Tensor:
        return kernels.l1(queries, vectors).neg_()

    def pull(self, queries: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        weights = -weights
        return kernels.l1_pull(queries, vectors, weights), kernels.l1_pull(vectors, queries, weights.T)

    def rows(self, queries: Tensor, vectors: Tensor) -> Tensor:
        return -(queries - vectors).abs().sum(-1)


class Dot:
    def pairs(self, queries: Tensor, vectors: Tensor) -> Tensor:
        return queries @ vectors.T

    def pull(self, queries: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return weights @ vectors, weights.T @ queries

    def rows(self, queries: Tensor, vectors: Tensor) -> Tensor:
        return (queries * vectors).sum(-1)


class Modulus:
    def pairs(self, queries: Tensor, vectors: Tensor) -> Tensor:
        return kernels.modulus(queries, vectors).neg_()

    def pull(self, queries: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        weights = -weights
        return kernels.modulus_pull(queries, vectors, weights), kernels.modulus_pull(vectors, queries, weights.T)

    def rows(self, queries: Tensor, vectors: Tensor) -> Tensor:
        real, imaginary = (queries - vectors).chunk(2, -1)
        return -(real.square() + imaginary.square() + 1e-30).sqrt().sum(-1)


def complex_product(a: Tensor, b: Tensor) -> Tensor:
    """Component by component, of complex vectors whose halves are real and imaginary parts."""
    (ar, ai), (br, bi) = a.chunk(2, -1), b.chunk(2, -1)
    return torch.cat([ar * br - ai * bi, ar * bi + ai * br], -1)


def conjugate(a: Tensor) -> Tensor:
    """The complex conjugate of such a vector."""
    real, imaginary = a.chunk(2, -1)
    return torch.cat([real, -imaginary], -1)
