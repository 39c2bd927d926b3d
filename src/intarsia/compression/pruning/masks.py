"""Which weights go, by scores: those with the lowest, among all of a matrix, of a row, of a group of neighbours, or of
all matrices together. As many as asked for, also where scores are equal.

Sources: Sun et al. 2023, Wanda, arXiv 2306.11695, eq. 1 (|W_ij| |x_j|, compared within a row); Mishra et al. 2021,
arXiv 2104.08378 (N:M)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from intarsia.errors import BadInput


def pattern_of(text: str) -> tuple[int, int]:
    """N and M of "N:M": N of M neighbours stay. Raises `BadInput` where nothing or everything would."""
    kept, group = (int(part) for part in text.split(":"))
    if not 0 < kept < group:
        raise BadInput(f"pattern {text}: N:M wants 0 < N < M, like 2:4 (2 of every 4 weights stay)")
    return kept, group


def lowest(scores: Tensor, sparsity: float) -> Tensor:
    """Bool, of the shape of `scores` [row, column]: the lowest share of every row, rounded down to whole weights.

    To compare a whole matrix, give it as one row."""
    count = whole(sparsity * scores.shape[1])
    gone = torch.zeros_like(scores, dtype=torch.bool)
    return gone.scatter_(1, scores.topk(count, dim=1, largest=False).indices, True)


def lowest_of_groups(scores: Tensor, kept: int, group: int) -> Tensor:
    """Bool [row, column]: all but the `kept` highest of every `group` neighbours of a row."""
    grouped = scores.unflatten(1, (-1, group))
    gone = torch.ones_like(grouped, dtype=torch.bool)
    return gone.scatter_(2, grouped.topk(kept, dim=2).indices, False).flatten(1)


def lowest_of_all(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Bool, of the shape of each score (0 or more, float32): the lowest share of them all together.

    The threshold is found without putting them in one tensor: floats that are not negative are ordered like their
    bits, so 31 counts find it exactly."""
    bits = [score.contiguous().view(torch.int32) for score in scores]
    count = whole(sparsity * sum(b.numel() for b in bits))
    low, high = 0, 2**31 - 1  # the smallest threshold at or under which there are `count` scores
    while low < high:
        middle = (low + high) // 2
        if sum(int((b <= middle).sum()) for b in bits) >= count:
            high = middle
        else:
            low = middle + 1
    gone = [b < low for b in bits]
    left = count - sum(int(g.sum()) for g in gone)
    for b, g in zip(bits, gone, strict=True):
        equal = (b == low).flatten().nonzero()[:, 0][:left]
        g.view(-1)[equal] = True
        left -= len(equal)
    return gone


def whole(count: float) -> int:
    """A share as a whole number: rounded down, but for what a product of floats misses."""
    return int(count + 1e-6)
