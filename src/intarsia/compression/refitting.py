"""Least squares after a layer was cut: what is left writes what all wrote together, as well as it can.

Minimises the mean of |y - W' z|^2 over the calibration text, z the inputs that are left, plus lambda times the sum over
them of H_jj |W'_j - W_j|^2: weights hold to what they were, each as firmly as its input is large, whatever the scale.
With H the second moment of z and D its diagonal: W' = W + E[(y - W z) z^T] (H + lambda D)^-1.

Where only inputs went, y = W x: E[(y - W_K z) z^T] = W_R H_RK, with K the inputs that are left and R those that went.

A small lambda fits the text rather than the language: at two tokens a neuron, 0.01 is worse than no refit at all.

Source: He et al. 2017, arXiv 1707.06168, §3.1 step ii (reconstruction by least squares); the ridge is our own."""

from __future__ import annotations

import torch
from torch import Tensor


def refit(weight: Tensor, moment: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """W' [out, kept] float32.

    - weight: [out, in]. moment: [in, in], H. kept: numbers of the inputs that are left. ridge: lambda."""
    stays = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
    stays[kept] = True
    weight, moment = weight.double(), moment.double()
    missed = weight[:, ~stays] @ moment[~stays][:, stays]
    return (weight[:, stays] + correction(missed, moment[stays][:, stays], ridge)).float()


def correction(missed: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """W' - W [out, in] float64.

    - missed: [out, in], E[(y - W z) z^T]. moment: [in, in], H of z. ridge: lambda."""
    missed, moment = missed.double(), moment.double()
    # In units of each input's own size: the scales of neurons lie orders of magnitude apart.
    size = moment.diagonal().sqrt()
    size = torch.where(size > 0, size, 1)
    between = (missed / size).T
    inner = moment / size[:, None] / size
    inner.diagonal().add_(ridge)
    inner.diagonal()[inner.diagonal() == ridge] = 1  # never seen: nothing is asked of it
    lower, failed = torch.linalg.cholesky_ex(inner)
    if failed:
        gained = torch.linalg.pinv(inner, hermitian=True) @ between
    else:
        gained = torch.cholesky_solve(between, lower)
    return (gained / size[:, None]).T
