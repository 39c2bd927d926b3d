"""Sequential greedy matching: what the parallel matchers come close to. Slow; a reference, not for use."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.tokens.matching.free import Found, Task, matched
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.similarity import bids, similarity


def greedy(
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None = None,
    importance: Tensor | None = None,
    strength: float = 0.0,
    later: bool = False,
) -> Pairs:
    """Pair after pair, always the best one left: highest similarity less strength * importance of its source, of equal
    ones the less important source, then the lower source and target. A source is gone; a target stays what it is.

    Arguments and answer as in `dominance`. A Python loop over all edges of every sample."""
    return matched(decide, metric, r, blocked=blocked, importance=importance, strength=strength, later=later)


def decide(task: Task) -> Found:
    """The pairs of some samples."""
    table = similarity(task.rows, task.counts, task.later)
    found = torch.zeros(2, len(table), task.most, dtype=torch.long)
    score = torch.zeros(len(table), task.most)
    for sample, edges in enumerate(table):
        importance = None if task.importance is None else task.importance[sample, :, None].expand_as(edges)
        value = bids(edges, importance, task.strength).flatten()
        order = torch.arange(value.numel()) if importance is None else importance.flatten().sort(stable=True).indices
        order = order[value[order].sort(descending=True, stable=True).indices]
        gone, targets, count = set(), set(), 0
        for edge in order.tolist():
            if count == int(task.wanted[sample]):
                break
            source, target = divmod(edge, edges.shape[1])
            if source in gone or source in targets or target in gone:
                continue
            gone.add(source)
            targets.add(target)
            found[0, sample, count], found[1, sample, count] = source, target
            score[sample, count] = edges[source, target]
            count += 1
    device = task.rows.device
    return found[0].to(device), found[1].to(device), score.to(device)
