"""LEACE: the smallest affine edit of states after which no linear probe can read a concept.

Source: Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form", theorem 4.3:
r(x) = x - W^+ P W (x - E x), with W the whitening matrix of the states and P the orthogonal projection onto the columns
of W Cov(x, z)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.errors import BadInput, MissingExtra


@dataclass(frozen=True)
class Eraser:
    """x -> x - ((x - mean) read) write, for states [..., width].

    - read [width, rank]: what of the state is taken out; write [rank, width]: in which directions. mean [width]."""

    read: Tensor
    write: Tensor
    mean: Tensor

    @property
    def rank(self) -> int:
        """Number of directions that are taken out."""
        return self.read.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """States of any shape [..., width], in their own dtype."""
        read, write, mean = (t.to(x.device, torch.promote_types(x.dtype, torch.float32)) for t in self)
        y = x.to(read.dtype)
        return (y - ((y - mean) @ read) @ write).to(x.dtype)

    def __iter__(self):
        return iter((self.read, self.write, self.mean))


def leace(x: Tensor, z: Tensor, shrinkage: float = 0.0) -> Eraser:
    """The eraser of z from x, fitted in float64.

    - x: states [n, width]. z: [n, concept] (one column a class, or one number).
    - shrinkage: share by which the states' covariance is drawn to a multiple of the identity. On the fitted data the
      covariance of r(x) and z is zero for any share; with fewer texts than dimensions some of it makes the edit hold up
      better on new texts.

    Raises `BadInput` when x and z do not go together."""
    if x.dim() != 2 or z.dim() != 2 or len(x) != len(z) or len(x) < 2:
        raise BadInput(
            f"leace: wants x [n, width] and z [n, concept], n at least 2; given {list(x.shape)}, {list(z.shape)}"
        )
    x, z = x.double(), z.double()
    mean = x.mean(0)
    centred, wanted = x - mean, z - z.mean(0)
    cross = centred.T @ wanted / len(x)
    covariance = centred.T @ centred / len(x)
    if shrinkage:
        level = covariance.diagonal().mean()
        covariance = (1 - shrinkage) * covariance
        covariance.diagonal().add_(shrinkage * level)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values.max().clamp_min(0) * 1e-12
    root = values.clamp_min(0).sqrt()
    whiten = (vectors[:, kept] / root[kept]) @ vectors[:, kept].T
    colour = (vectors[:, kept] * root[kept]) @ vectors[:, kept].T
    left, singular, _ = torch.linalg.svd(whiten @ cross, full_matrices=False)
    basis = left[:, singular > max(float(singular.max()), 1e-30) * 1e-8]
    return Eraser(read=whiten @ basis, write=basis.T @ colour, mean=mean)


def ledoit_wolf(x: Tensor) -> float:
    """The share of shrinkage for states x [n, width] that makes the covariance's expected error smallest.

    Source: Ledoit & Wolf 2004. Raises `MissingExtra` without scikit-learn."""
    try:
        from sklearn.covariance import ledoit_wolf_shrinkage
    except ImportError:
        raise MissingExtra("choosing the shrinkage of an eraser", "quality") from None
    return float(ledoit_wolf_shrinkage(x.double().cpu().numpy()))


def one_hot(numbers: Tensor, classes: int) -> Tensor:
    """Class numbers [n] as [n, classes] float64."""
    return torch.nn.functional.one_hot(numbers.long(), classes).double()
