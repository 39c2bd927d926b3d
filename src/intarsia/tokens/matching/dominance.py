"""Local-dominance matching: close to sequential greedy, in a few parallel rounds."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.tokens.matching.free import Found, Task, matched
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.similarity import highest, ranks, similarity


def dominance(
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None = None,
    importance: Tensor | None = None,
    strength: float = 0.0,
    later: bool = False,
    rounds: int = 8,
) -> Pairs:
    """Pair up `r` rows of every sample with their most similar ones.

    - metric: [batch, token, width] what rows are compared by (cosine, float32), of any dtype.
    - r: pairs wanted; every sample gives at most half of its free rows.
    - blocked: [batch, token] bool, rows that are neither merged nor merged into.
    - importance: [batch, token]; with `strength` it spares important rows, and at any strength it decides ties.
    - later: a row may only be merged into one behind it (causal towers).
    - rounds: after these the search ends as soon as `r` pairs are found.

    In a round every undecided row bids for its most similar row that is not merged away, with similarity - strength *
    importance. A row whose bid is above all bids for itself is merged, unless its choice is being merged too; its
    choice is a target from then on. The `r` best pairs so far are held and the others set free again; only rows that
    can still beat one of them bid in the next round. So with as many rounds as it takes no single row could be merged
    at a better price than the worst pair held. Of equal bids that of the less important row counts as higher, then
    that of the lower index.

    Runs without gradients. A sample's pairs do not depend on the other samples nor on blocked rows. Raises `BadInput`
    for shapes that do not fit and a negative `r`."""
    return matched(
        functools.partial(decide, rounds=rounds),
        metric,
        r,
        blocked=blocked,
        importance=importance,
        strength=strength,
        later=later,
    )


def decide(task: Task, rounds: int) -> Found:
    """The pairs of some samples."""
    table = similarity(task.rows, task.counts, task.later)
    best, to = highest(table)
    order = Order.of(task)
    key = order.keys(best)
    merged = torch.zeros_like(key, dtype=torch.bool)
    last = (task.wanted[:, None] - 1).clamp(min=0)
    least = torch.full_like(last, NEVER).masked_fill_(task.wanted[:, None] == 0, torch.iinfo(torch.int64).max)
    turn = 0
    while True:
        held = key.masked_fill(~merged, NEVER).topk(task.most, dim=1)
        # A bid has to be better than the last pair held; any will do while there are fewer than wanted.
        bar = held.values.gather(1, last)
        merged &= key >= bar
        closed = merged | marked(to, merged)
        if turn >= rounds:
            closed |= bar > NEVER
        bar = torch.maximum(bar, least)
        while True:
            live = (key > bar) & ~closed
            again = live & merged.gather(1, to)
            sample, row = again.nonzero(as_tuple=True)
            if not len(row):
                break
            # Bids for rows that were merged away are made anew.
            edges = table[sample, row].masked_fill_(merged[sample], -torch.inf)
            best[sample, row], to[sample, row] = edges.max(dim=1)
            key = order.keys(best)
        claims = key.masked_fill(~live, NEVER)
        rival = torch.full_like(key, NEVER).scatter_reduce_(1, to, claims, "amax")
        wins = claims > rival
        if not bool(wins.any()):  # (of those who bid, the best one always wins)
            return held.indices, to.gather(1, held.indices), best.gather(1, held.indices)
        merged |= wins & ~wins.gather(1, to)
        turn += 1


def marked(to: Tensor, merged: Tensor) -> Tensor:
    """[batch, row] bool: rows that a merged row goes into."""
    return torch.zeros_like(to).scatter_add_(1, to, merged.long()) > 0


NEVER = -(2**63)
"""The key of a row that cannot be merged: below all others."""


@dataclass(frozen=True)
class Order:
    """Bids as whole numbers that have no ties, to be compared without sorting: the bid's bits above, and below them the
    row's place among rows of equal bids.

    - place: [batch or 1, row] int64, higher for less important rows, then for lower indices.
    - price: [batch, row] what a row's bid is less than its similarity; None: nothing."""

    place: Tensor
    price: Tensor | None

    @classmethod
    def of(cls, task: Task) -> Order:
        """The order of a task's rows."""
        rows = task.rows.shape[1]
        if task.importance is None:
            return cls(torch.arange(rows - 1, -1, -1, device=task.rows.device)[None], None)
        place = rows - 1 - ranks(torch.sort(task.importance, dim=1, stable=True).indices)
        return cls(place, task.strength * task.importance if task.strength else None)

    def keys(self, best: Tensor) -> Tensor:
        """[batch, row] int64, from the rows' best similarities."""
        # (adding zero makes -0.0 the same as 0.0)
        bid = best if self.price is None else (best - self.price).clamp_(min=torch.finfo(best.dtype).min)
        bits = (bid + 0.0).view(torch.int32)
        # As whole numbers the bits of negative floats run the wrong way round.
        high = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
        return ((high << 32) + self.place).masked_fill_(best == -torch.inf, NEVER)
