"""Similarities between rows, and the order of rows with all ties decided."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 16
"""Below this many rows matrix products run on other kernels, whose sums depend on a row's place."""


def unit_rows(metric: Tensor) -> Tensor:
    """Rows of length one in float32. Rows of zeros, and numbers that are none, become zeros: similar to nothing."""
    rows = metric.float()
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp(min=1e-12)
    return rows.nan_to_num_(0.0, 0.0, 0.0)


def products(a: Tensor, b: Tensor) -> Tensor:
    """[batch, row of a, row of b]: inner products, the same for a pair of rows wherever they stand."""
    with torch.autocast(a.device.type, enabled=False):  # or it would be half precision while a model is trained in it
        if max(a.shape[1], b.shape[1]) < FEW:
            return (a.double() @ b.double().mT).float()
        return a @ b.mT


def similarity(rows: Tensor, counts: Tensor | None = None, later: bool = False) -> Tensor:
    """[batch, row, row] cosine similarities of unit rows; -inf where a row may not be merged into the other: itself,
    rows from `counts` [batch] on and, with `later`, rows before it."""
    table = products(rows, rows)
    table.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    if later:
        before = torch.ones(table.shape[1:], dtype=torch.bool, device=table.device).tril_()
        table.masked_fill_(before, -torch.inf)
    if counts is not None:
        absent = torch.arange(table.shape[1], device=table.device) >= counts[:, None]
        table.masked_fill_(absent[:, None, :], -torch.inf).masked_fill_(absent[:, :, None], -torch.inf)
    return table


def highest(table: Tensor) -> tuple[Tensor, Tensor]:
    """[batch, row] the largest of each row and its column, of equal ones the lowest."""
    if table.device.type != "cpu":
        best, column = table.max(dim=2)
        return best, column
    # numpy's argmax is vectorised where torch's is not: ten times as fast, and half of the work otherwise.
    column = torch.from_numpy(table.numpy().argmax(axis=2))
    return table.gather(2, column[..., None])[..., 0], column


def ordering(value: Tensor, importance: Tensor | None) -> Tensor:
    """[batch, place] the rows by falling `value` [batch, row]; of equal ones the less important first, then the lower
    index."""
    if importance is None:
        return torch.sort(value, dim=1, descending=True, stable=True).indices
    first = torch.sort(importance, dim=1, stable=True).indices
    return first.gather(1, torch.sort(value.gather(1, first), dim=1, descending=True, stable=True).indices)


def ranks(order: Tensor) -> Tensor:
    """[batch, row] the place of each row in `order` [batch, place]."""
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place)


def bids(best: Tensor, importance: Tensor | None, strength: float) -> Tensor:
    """How much a row wants to be merged: its best similarity less `strength` times its importance."""
    return best if importance is None or strength == 0 else best - strength * importance
