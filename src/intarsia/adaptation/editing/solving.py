"""The closed form of both methods, in float64.

Weights W turn keys into values. The change D that gives the new values R = V* - W K at n keys K, and disturbs ordinary
keys of second moment C as little as possible, minimises

    sum_i |D k_i - r_i|^2 + lambda tr(D C D^T)

and is D = R K^T (lambda C + K K^T)^-1 (MEMIT, eq. 14). By the matrix inversion lemma that is also

    D = R (lambda I + K^T C^-1 K)^-1 (C^-1 K)^T

which needs one factor of C and a system of n unknowns, and still holds at lambda = 0, where D k_i = r_i exactly. With
one key that is ROME's eq. 2: (v* - W k*) (C^-1 k*)^T / (k*^T C^-1 k*)."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.adaptation.editing.exact import exact
from intarsia.errors import IntarsiaError


class Moment:
    """The second moment C of keys, factored once: C + ridge * mean(diag C) * I = L L^T.

    - matrix: [neuron, neuron] float64, symmetric."""

    def __init__(self, matrix: Tensor, ridge: float = 0.0):
        matrix = exact(matrix)
        if ridge:
            matrix = matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype).to(matrix)
        self.matrix = matrix
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            raise IntarsiaError(
                f"the covariance of {len(matrix)} neurons has no inverse: give more tokens of text, or a ridge above 0"
            )
        self._factor = factor

    def solve(self, keys: Tensor) -> Tensor:
        """C^-1 K for keys [n, neuron]: [n, neuron]."""
        return torch.cholesky_solve(exact(keys).T, self._factor).T


def change(keys: Tensor, residuals: Tensor, moment: Moment, weight: float = 0.0) -> Tensor:
    """The change [width, neuron] of the weights for keys [n, neuron] and residuals R^T [n, width].

    - weight: lambda; 0: every key gets its value exactly.

    Raises `IntarsiaError` at lambda = 0 for keys that are multiples of each other."""
    keys, residuals = exact(keys), exact(residuals)
    turned = moment.solve(keys)
    inner = keys @ turned.T
    inner = (inner + inner.T) / 2 + weight * torch.eye(len(keys), dtype=inner.dtype, device=inner.device)
    factor, failed = torch.linalg.cholesky_ex(inner)
    if int(failed):
        raise IntarsiaError("two edits have the same key: edit them one after the other, or give covariance_weight")
    return residuals.T @ torch.cholesky_solve(turned, factor)
