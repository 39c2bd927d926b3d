"""Affine maps between states by centred ridge regression, in float64 and in one pass over the data.

The sums of many batches are all that is kept, so the data may be as long as it likes; the same Gram matrix of the
inputs serves any number of outputs (one source layer, all target layers)."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.errors import BadInput


class Ridge:
    """Sums over rows of inputs x [row, width] and outputs y [row, out], from which maps y = x A + b are solved.

    Sums are taken about the mean of the first batch: states have means far from zero, and differences of large sums
    would lose digits."""

    def __init__(self) -> None:
        self.rows = 0
        self._shift: tuple[Tensor, Tensor] | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [row, width], y [row, out], any floating dtype."""
        if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
            raise BadInput(
                f"ridge: wants x [row, width] and y [row, out] with equal rows, was given {list(x.shape)} and "
                f"{list(y.shape)}"
            )
        if not len(x):
            return
        x, y = x.double(), y.double()
        if self._shift is None:
            self._shift = x.mean(0), y.mean(0)
            self._xx = x.new_zeros(x.shape[1], x.shape[1])
            self._xy = x.new_zeros(x.shape[1], y.shape[1])
            self._x, self._y = x.new_zeros(x.shape[1]), y.new_zeros(y.shape[1])
        x, y = x - self._shift[0], y - self._shift[1]
        self._xx.addmm_(x.T, x)
        self._xy.addmm_(x.T, y)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self.rows += len(x)

    @property
    def width(self) -> int:
        """Width of the inputs; 0 before the first rows."""
        return 0 if self._shift is None else len(self._shift[0])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [width] of the inputs so far, float64; a constant input counts as deviating by 1.

        Raises `BadInput` before the first rows."""
        if self._shift is None:
            raise BadInput("ridge: no rows were given: wants at least two")
        mean = self._x / self.rows
        variance = (self._xx.diagonal() / self.rows - mean**2).clamp_min(0)
        return mean + self._shift[0], torch.where(variance > 0, variance, 1.0).sqrt()

    def solve(self, penalty: float = 1e-2) -> tuple[Tensor, Tensor]:
        """The map (A [width, out], b [out]), float64, that minimises |y - x A - b|^2 + p |A|^2.

        - penalty: p as a share of the mean diagonal of the centred Gram matrix; b is not penalised.

        Raises `BadInput` with fewer than two rows."""
        if self.rows < 2 or self._shift is None:
            raise BadInput(f"ridge: {self.rows} rows were given: wants at least two, and better ten times the width")
        if penalty < 0:
            raise BadInput(f"ridge: the penalty must not be negative, was {penalty}")
        mean_x, mean_y = self._x / self.rows, self._y / self.rows
        gram = self._xx - self.rows * torch.outer(mean_x, mean_x)
        cross = self._xy - self.rows * torch.outer(mean_x, mean_y)
        strength = penalty * float(gram.diagonal().mean())
        gram.diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            # No penalty and fewer independent rows than columns: of all the best maps the smallest.
            matrix = torch.linalg.pinv(gram, hermitian=True) @ cross
        else:
            matrix = torch.cholesky_solve(cross, factor)
        bias = (mean_y + self._shift[1]) - (mean_x + self._shift[0]) @ matrix
        return matrix, bias


def fit_affine(x: Tensor, y: Tensor, penalty: float = 1e-2) -> tuple[Tensor, Tensor]:
    """The ridge map (A [width, out], b [out]) of all rows at once, float64: y is about x A + b. See `Ridge`."""
    sums = Ridge()
    sums.add(x, y)
    return sums.solve(penalty)
