"""GPTQ: weights are rounded column by column, and what rounding one column spoils the columns after it make good.

Minimises tr((W' - W) H (W' - W)^T), the squared error of the layer's output over the calibration text, with H the
second moment of its inputs. With U the upper Cholesky factor of H^-1 the error of column c, divided by U_cc, is taken
off the columns after it in proportion to row c of U.

Source: Frantar et al. 2023, GPTQ, arXiv 2210.17323, algorithm 1. Scales of a group are set when its first column is
reached, from the columns as they are then."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.compression.quantization.grids import SMALLEST_SCALE, Grid, round_to
from intarsia.compression.quantization.values import nearest, table_of
from intarsia.errors import IntarsiaError

DAMPING = 0.01
BLOCK = 128  # columns whose errors are spread among themselves before the rest hears of them


def gptq(
    weight: Tensor, moment: Tensor, grid: Grid, *, damping: float = DAMPING, block: int = BLOCK
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes, scales and zeros of a weight [out, in], as `round_to` gives them.

    - moment: [in, in], H. damping: what is added to its diagonal, in means of it. Inputs that are always zero are
      rounded to zero.

    Raises `IntarsiaError` where H has no inverse in spite of the damping."""
    rows, width = weight.shape
    work = weight.detach().to(torch.float32, copy=True)
    dead = moment.diagonal() == 0
    work[:, dead] = 0
    upper = factor(moment, damping)
    group = grid.group or width
    # A block holds whole groups, so that a group's columns are up to date when its scale is set.
    block = width if grid.group is None else max(group, block - block % group)
    inner = block if grid.group is not None else BLOCK
    codes = torch.empty(rows, width, dtype=torch.uint8)
    scales, zeros = [], []
    step = zero = torch.empty(0)
    top = 2**grid.bits - 1
    table = None if grid.values == "whole" else table_of(grid.values)
    for start in range(0, width, inner):
        end = min(start + inner, width)
        part, errors = work[:, start:end], torch.empty(rows, end - start)
        corner = upper[start:end, start:end]
        for c in range(end - start):
            if (start + c) % group == 0:
                known = work if grid.group is None else part[:, c : c + group]
                _, scale, middle = round_to(known, grid)
                scales.append(scale)
                zeros.append(middle)
                step = scale[:, 0].float()
                zero = torch.full_like(step, grid.middle) if middle is None else middle[:, 0].float()
            column = part[:, c]
            if table is None:
                code = ((column / step).round() + zero).clamp_(0, top)
                value = (code - zero) * step
            else:
                code = nearest(column / step.clamp(min=SMALLEST_SCALE), grid.values)
                value = table[code.long()] * step
            codes[:, start + c] = code.to(torch.uint8)
            error = (column - value) / corner[c, c]
            part[:, c:].addr_(error, corner[c, c:], alpha=-1)
            errors[:, c] = error
        if end < width:
            work[:, end:].addmm_(errors, upper[start:end, end:], alpha=-1)
    return codes, torch.cat(scales, 1), None if grid.symmetric else torch.cat(zeros, 1)


def factor(moment: Tensor, damping: float = DAMPING) -> Tensor:
    """Upper Cholesky factor [in, in] float32 of the inverse of the damped moment: H^-1 = U^T U."""
    damped = moment.to(torch.float64, copy=True)
    diagonal = damped.diagonal()
    dead = diagonal == 0
    diagonal += damping * float(diagonal.mean())
    diagonal[dead] = 1.0
    lower, failed = torch.linalg.cholesky_ex(damped)
    if not failed:
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if failed:
        raise IntarsiaError("the inputs' second moment has no inverse: give more calibration text, or a larger damping")
    return upper.float()
