"""Least squares after inputs of a layer went: what is left writes what all wrote together, as well as it can.

Minimises the mean of |W x - W' x_K|^2 over the calibration text, K the inputs that are left, plus lambda times the sum
over them of H_jj |W'_j - W_j|^2: weights hold to what they were, each as firmly as its input is large, whatever the
scale. With H the second moment of x, D its diagonal and R the inputs that went:
W' = W_K + W_R H_RK (H_KK + lambda D_KK)^-1.

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
    # In units of each input's own size: the scales of neurons lie orders of magnitude apart.
    size = moment.diagonal()[stays].sqrt()
    size = torch.where(size > 0, size, 1)
    between = moment[stays][:, ~stays] / size[:, None]
    inner = moment[stays][:, stays] / size / size[:, None]
    inner.diagonal().add_(ridge)
    inner.diagonal()[inner.diagonal() == ridge] = 1  # never seen: nothing is asked of it
    lower, failed = torch.linalg.cholesky_ex(inner)
    if failed:
        gained = torch.linalg.pinv(inner, hermitian=True) @ between
    else:
        gained = torch.cholesky_solve(between, lower)
    return (weight[:, stays] + weight[:, ~stays] @ (gained / size[:, None]).T).float()
