"""Pruning: the least important rows are dropped, nothing is merged."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.sites.recomposing import Step
from intarsia.tokens.matching.similarity import ordering
from intarsia.tokens.survivors import rows_of, survivors


def prune(stream: Tensor, r: int, *, importance: Tensor | None, blocked: Tensor | None = None) -> Step:
    """Drop the `r` least important free rows of every sample (of equal ones the lower index first), but never its last.

    - stream: [batch, token, width].
    - importance: [batch, token]. Raises `BadInput` without it, and for a negative `r`.
    - blocked: [batch, token] bool, rows that stay."""
    if importance is None:
        raise BadInput("pruning drops the least important tokens: it needs an importance")
    if r < 0:
        raise BadInput(f"r is {r}: give how many rows to drop, 0 or more")
    with torch.no_grad():
        value = importance.detach().float().nan_to_num(0.0)
        if blocked is None:
            blocked = torch.zeros(value.shape, dtype=torch.bool, device=value.device)
        free = (~blocked).sum(1, keepdim=True)
        order = ordering(-value.masked_fill(blocked, torch.inf), None)
        place = torch.arange(value.shape[1], device=value.device).expand_as(order)
        gone = torch.zeros_like(blocked).scatter_(1, order, place < (free - 1).clamp(min=0, max=operator.index(r)))
        keep, new = survivors(gone)
    return Step(rows_of(stream, keep, padded=True), keep, new.masked_fill(gone, -1))
