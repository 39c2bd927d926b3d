"""Local-dominance matching: close to sequential greedy, in a few parallel rounds."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from intarsia.tokens.matching.free import Found, Task, matched
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.similarity import bids, ordering, ranks, similarity


def dominance(
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None = None,
    importance: Tensor | None = None,
    strength: float = 0.0,
    later: bool = False,
    rounds: int = 4,
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
    batch, rows = table.shape[:2]
    best, to = table.max(dim=2)
    merged = torch.zeros(batch, rows, dtype=torch.bool, device=table.device)
    last = (task.wanted[:, None] - 1).clamp(min=0)
    turn = 0
    while True:
        rank = ranks(ordering(bids(best, task.importance, task.strength), task.importance))
        held = rank.masked_fill(~merged, rows).sort(dim=1)
        # A bid has to be better than the last pair held; any will do while there are fewer than wanted.
        bar = held.values.gather(1, last)
        full = (bar < rows) | (task.wanted[:, None] == 0)
        live = (rank < bar) & ~merged & ~marked(to, merged) & (best > -torch.inf)
        live &= ~full if turn >= rounds else task.wanted[:, None] > 0
        # Bids for rows that were merged away are made anew.
        again = live & merged.gather(1, to)
        if bool(again.any()):
            sample, row = again.nonzero(as_tuple=True)
            best[sample, row], to[sample, row] = table[sample, row].masked_fill_(merged[sample], -torch.inf).max(dim=1)
            continue
        if not bool(live.any()):
            break
        rival = torch.full_like(rank, rows).scatter_reduce_(1, to, rank.masked_fill(~live, rows), "amin")
        wins = live & (rank < rival)
        merged |= wins & ~wins.gather(1, to)
        merged &= rank <= rank.masked_fill(~merged, rows).sort(dim=1).values.gather(1, last)
        turn += 1
    source = held.indices[:, : task.most]
    return source, to.gather(1, source), best.gather(1, source)


def marked(to: Tensor, merged: Tensor) -> Tensor:
    """[batch, row] bool: rows that a merged row goes into."""
    return torch.zeros_like(to).scatter_add_(1, to, merged.long()) > 0
