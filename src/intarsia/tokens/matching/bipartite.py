"""ToMe's matching (Bolya et al. 2023, "Token Merging: Your ViT But Faster", §3): rows in two halves by turns."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.tokens.matching.free import Found, Task, matched
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.similarity import bids, highest, ordering, products


def bipartite(
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None = None,
    importance: Tensor | None = None,
    strength: float = 0.0,
    later: bool = False,
) -> Pairs:
    """Every second free row picks its most similar row among the others; the `r` best of these pairs are taken.

    Arguments and answer as in `dominance`. Free rows are dealt out by turns, the first to the targets: with a class
    token in front these are ToMe's halves (it deals by index, class token included). With `later` the first is a
    source, so that every source has a row behind it. Importance is CrossGET's addition; at strength 0 it decides ties
    alone. Cost: a quarter of all similarities."""
    return matched(decide, metric, r, blocked=blocked, importance=importance, strength=strength, later=later)


def decide(task: Task) -> Found:
    """The pairs of some samples."""
    first = 0 if task.later else 1
    table = products(task.rows[:, first::2], task.rows[:, 1 - first :: 2])
    sources, targets = table.shape[1:]
    if task.later:
        place = torch.arange(max(sources, targets), device=table.device)
        table.masked_fill_(place[:sources, None] > place[None, :targets], -torch.inf)
    if (absent := task.absent) is not None:
        table.masked_fill_(absent[:, None, 1 - first :: 2], -torch.inf)
        table.masked_fill_(absent[:, first::2, None], -torch.inf)
    best, to = highest(table)
    importance = None if task.importance is None else task.importance[:, first::2]
    order = ordering(bids(best, importance, task.strength), importance)[:, : task.most]
    return 2 * order + first, 2 * to.gather(1, order) + 1 - first, best.gather(1, order)
