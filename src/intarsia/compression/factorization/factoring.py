"""The best factors of a matrix: W ~ A C with A [out, r] and C [r, in], by three norms of what a layer's outputs lose.

With M the second moment that the norm gives the inputs, W - A C is least in tr(D M D^T) where A has the first r
eigenvectors of W M W^T for columns and C = A^T W: the outputs are projected on the directions in which they vary most,
and nothing is ever divided by the inputs' moment. The norms differ in M only:

    plain      M = I                      the matrix's own singular vectors
    asvd       M = diag(mean |x|)         columns scaled by (mean |x|)^(1/2)
    whitened   M = E[x x^T] + lambda I    what the layer's outputs really lose over the text

Where a layer has more outputs than inputs the same directions come cheaper from M = S S^T: with V the eigenvectors of
(W S)^T W S they are the columns of W S V, made orthonormal.

Source: Wang et al. 2024, SVD-LLM, arXiv 2403.07378, §3 (whitening, and the closed-form update of one factor); Yuan et
al. 2023, ASVD, arXiv 2312.05821, §3 (alpha 1/2); survey: Goel et al. 2020, arXiv 2003.11066, §3.2-3.3."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from intarsia.compression.refitting import correction
from intarsia.compression.statistics import LayerStats

Method = Literal["whitened", "asvd", "plain"]
DAMPING = 1e-4
RIDGES = (0.1, 0.3, 1.0, 3.0)


def metric(method: Method, width: int, stats: LayerStats | None, damping: float = DAMPING) -> Tensor:
    """M [in, in] float64; the plain one for a layer that no text reached.

    - damping: lambda, in means of the diagonal."""
    if method == "plain" or stats is None or not stats.count:
        device = None if stats is None else stats.moment.device
        return torch.eye(width, dtype=torch.float64, device=device)
    if method == "asvd":
        return stats.mean.double().diag()
    moment = stats.moment.double().clone()
    moment.diagonal().add_(damping * moment.diagonal().mean())
    return moment


def directions(weight: Tensor, moment: Tensor) -> Tensor:
    """U [out, min(out, in)] float64, orthonormal: the first r of its columns are the best A of rank r, for any r.

    - weight: W [out, in]. moment: M [in, in]."""
    weight = weight.double()
    moment = moment.to(weight)
    if weight.shape[0] <= weight.shape[1]:
        outputs = weight @ moment @ weight.T
        return torch.linalg.eigh((outputs + outputs.T) / 2)[1].flip(1)
    lower, failed = torch.linalg.cholesky_ex(moment)
    if failed:  # inputs that never varied
        size, turn = torch.linalg.eigh(moment)
        lower = turn * size.clamp(min=0).sqrt()
    seen = weight @ lower
    _, turn = torch.linalg.eigh(seen.T @ seen)
    return torch.linalg.qr(seen @ turn.flip(1))[0]


def factors(weight: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [out, rank], orthonormal, and C [rank, in], float64."""
    left = directions(weight, moment)[:, :rank]
    return left, left.T @ weight.double()


def refitted(weight: Tensor, left: Tensor, right: Tensor, moment: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """A' [out, rank] float64: the layer writes from its inputs z of now what it wrote from its inputs x of before.

    Least squares of W x by A' C z, with a ridge towards A: over the text it is never worse than A.

    - moment: [in, in], E[z z^T]. cross: [in, in], E[x z^T]. ridge: in shares of each column's own size."""
    weight, left, right = weight.double(), left.double(), right.double()
    inner = right @ moment.double() @ right.T
    missed = weight @ cross.double() @ right.T - left @ inner
    return left + correction(missed, inner, ridge)


def chosen_ridge(
    weight: Tensor, left: Tensor, right: Tensor, fitted: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]
) -> float:  # fmt: skip
    """The one of `RIDGES` with which a refit errs least on text it has not seen; infinite where none helps there.

    - fitted, held: E[z z^T] and E[x z^T] [in, in], of the text a refit is made on and of other text."""
    moment, cross = (m.double() for m in held)
    code = right.double()
    wanted, inner = weight.double() @ cross @ code.T, code @ moment @ code.T

    def error(new: Tensor) -> float:
        """E |W x - A' C z|^2 less E |W x|^2."""
        return float(((new @ inner - 2 * wanted) * new).sum())

    errors = {ridge: error(refitted(weight, left, right, *fitted, ridge)) for ridge in RIDGES}
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] < error(left.double()) else math.inf
