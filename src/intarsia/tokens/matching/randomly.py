"""Random pairs: what any matching has to beat."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from intarsia.tokens.matching.free import Found, Task, matched
from intarsia.tokens.matching.pairs import Pairs


def randomly(
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None = None,
    importance: Tensor | None = None,
    strength: float = 0.0,
    later: bool = False,
    seed: int = 0,
) -> Pairs:
    """`r` disjoint random pairs by `seed`, the same for every sample with as many free rows. Importance does not count.
    Arguments and answer as in `dominance`."""
    return matched(
        functools.partial(decide, seed=seed),
        metric,
        r,
        blocked=blocked,
        importance=importance,
        strength=strength,
        later=later,
    )


def decide(task: Task, seed: int) -> Found:
    """The pairs of some samples."""
    batch, rows = task.rows.shape[:2]
    # (a numpy generator gives the same first numbers however many are drawn)
    drawn = torch.from_numpy(np.random.default_rng(seed).random(rows)).to(task.rows.device).expand(batch, -1)
    if task.absent is not None:
        drawn = drawn.masked_fill(task.absent, 2.0)
    shuffled = torch.argsort(drawn, dim=1, stable=True)
    one, two = shuffled[:, 0 : 2 * task.most : 2], shuffled[:, 1 : 2 * task.most : 2]
    if task.later:
        one, two = torch.minimum(one, two), torch.maximum(one, two)
    return one, two, None
