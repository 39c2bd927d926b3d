"""CrossGET's complete-graph soft matching (Shi et al. 2024, "CrossGET: Cross-Guided Ensemble of Tokens", §3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.tokens.matching.free import Found, Task, matched
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.similarity import bids, highest, ordering, ranks, similarity


def complete(
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None = None,
    importance: Tensor | None = None,
    strength: float = 0.0,
    later: bool = False,
) -> Pairs:
    """The paper's policy, exactly, in few passes. Arguments and answer as in `dominance`.

    Rows are ranked by their best similarity. An edge counts for its better-ranked end alone, so that two rows nearest
    to each other do not both become sources over one edge. The `r` rows with the smallest strength * importance - best
    counting edge are the sources; each goes to the most similar row that is none. Both members of a mutually nearest
    pair have the same best similarity, and the paper leaves to its sort which is ranked first; here it is the less
    important one, then the lower index.

    With `later` an edge counts for its earlier end, which needs no ranks."""
    return matched(decide, metric, r, blocked=blocked, importance=importance, strength=strength, later=later)


def decide(task: Task) -> Found:
    """The pairs of some samples."""
    table = similarity(task.rows, task.counts, task.later)
    best = table.amax(dim=2)
    if not task.later:
        rank = ranks(ordering(best, task.importance)).to(torch.int32)
        best = torch.where(rank[:, :, None] < rank[:, None, :], table, -torch.inf).amax(dim=2)
    order = ordering(bids(best, task.importance, task.strength), task.importance)
    source = order[:, : task.most]
    chosen = torch.arange(task.most, device=source.device) < task.wanted[:, None]
    taken = torch.zeros_like(best, dtype=torch.bool).scatter_(1, source, chosen)
    edges = table.gather(1, source[..., None].expand(-1, -1, table.shape[2]))
    score, target = highest(edges.masked_fill_(taken[:, None, :], -torch.inf))
    return source, target, score
