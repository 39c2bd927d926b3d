"""SparseGPT: weights become zero column by column, and the columns to the right make good what that spoils.

Minimises tr((W' - W) H (W' - W)^T), the squared error of the layer's output over the calibration text, with H the
second moment of its inputs. With U the upper Cholesky factor of H^-1, setting w_ij to zero costs w_ij^2 / U_jj^2, given
that the columns to the right are free to answer; which ones go is chosen for a block of columns when it is reached, or
for every M columns where N of M must stay.

Source: Frantar & Alistarh 2023, SparseGPT, arXiv 2301.00774, algorithm 1."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.compression.pruning.masks import lowest, lowest_of_groups
from intarsia.compression.quantization.gptq import factor


def sparsegpt(
    weight: Tensor,
    moment: Tensor,
    sparsity: float | tuple[int, int],
    *,
    damping: float = 0.01,
    block: int = 64,
) -> tuple[Tensor, Tensor]:
    """W' [out, in] float32, and a bool of its shape: which weights are zero.

    - moment: [in, in], H. sparsity: a share, or N and M of a pattern (M must divide `in`). damping: what is added to
      H's diagonal, in means of it. block: columns among which the share is taken; made to hold whole groups of M.

    Inputs that were always zero lose their weights first. Raises `IntarsiaError` where H has no inverse in spite of the
    damping."""
    group = sparsity[1] if isinstance(sparsity, tuple) else 1
    block = max(group, block - block % group)
    work = weight.detach().to(torch.float32, copy=True)
    work[:, moment.diagonal() == 0] = 0
    upper = factor(moment, damping)
    gone = torch.zeros_like(work, dtype=torch.bool)
    width = work.shape[1]
    for start in range(0, width, block):
        end = min(start + block, width)
        part, corner = work[:, start:end], upper[start:end, start:end]
        errors, mask = torch.zeros_like(part), gone[:, start:end]
        diagonal = corner.diagonal()
        if not isinstance(sparsity, tuple):
            costs = (part / diagonal).square()
            mask.copy_(lowest(costs.reshape(1, -1), sparsity).view_as(costs))
        for column in range(end - start):
            if isinstance(sparsity, tuple) and column % group == 0:
                some = slice(column, column + group)
                mask[:, some] = lowest_of_groups((part[:, some] / diagonal[some]).square(), *sparsity)
            error = part[:, column] * mask[:, column] / corner[column, column]
            part[:, column:].addr_(error, corner[column, column:], alpha=-1)
            errors[:, column] = error
        work[:, end:].addmm_(errors, upper[start:end, end:], alpha=-1)
    work[gone] = 0
    return work, gone
