"""The rows that go on after a reduction: which they are, and taking them out of a stream."""

from __future__ import annotations

import torch
from torch import Tensor


def survivors(gone: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """From [batch, old] bool, the rows that go: the old indices of those that stay [batch, new], in order, -1 where a
    sample has fewer than its batch mates; and the new place of each old row [batch, old], for those that stay.

    - most: how many stay at most in a sample, when that is known; saves a look at the data."""
    old = gone.shape[1]
    left = torch.cumsum(~gone, dim=1)
    if most is None:
        most = int(left[:, -1].max()) if gone.numel() else 0
    place = torch.arange(old, device=gone.device).expand_as(gone)
    # Rows that go are all written to one place behind the others, which is cut off.
    keep = torch.full((len(gone), old + 1), -1, device=gone.device)
    keep.scatter_(1, (left - 1).masked_fill(gone, old), place)
    return keep[:, :most], left - 1


def rows_of(stream: Tensor, index: Tensor, padded: bool = False) -> Tensor:
    """[batch, new, width], a new tensor: the rows that `index` [batch, new] names.

    - padded: whether there are -1 in it, which give zeros."""
    batch, old, width = stream.shape
    start = torch.arange(batch, device=index.device)[:, None] * old
    flat = ((index.clamp(min=0) if padded else index) + start).flatten()
    # Whole rows are copied: several times as fast as a gather with an index as wide as the stream.
    rows = stream.reshape(batch * old, width).index_select(0, flat).view(*index.shape, width)
    return rows.masked_fill((index < 0)[..., None], 0) if padded else rows
