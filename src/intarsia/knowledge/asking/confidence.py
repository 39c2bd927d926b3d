"""Confidence that can be believed: one temperature, fitted on held-out facts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from intarsia.knowledge.evaluation.ranking import ranked_scores
from intarsia.knowledge.graph.growing import Array
from intarsia.knowledge.learning.learner import Learner

MOST = 2000  # questions it is fitted on
LEAST = 25  # facts below which nothing is fitted
GRID = torch.logspace(-1.5, 1.5, 61).tolist()


def fitted_temperature(learner: Learner, index: int) -> float | None:
    """The temperature with which a softmax over all entities gives held-out answers the most likelihood.

    From the validation facts of the latest snapshots; known answers do not compete. None where there are fewer than
    `LEAST` facts, which would be fitted too well (Guo et al. 2017, temperature scaling)."""
    held = np.empty((0, 3), np.int64)
    for i in range(index, -1, -1):
        held = held if len(held) >= LEAST else np.concatenate([held, learner.graph.snapshots[i].valid])
    if len(held) < LEAST or learner.ranker is None:
        return None
    sharpness = learner.scorer.sharpness
    losses = torch.zeros(len(GRID), dtype=torch.float64)
    for scores, answers in filtered(learner, held, index):
        for i, temperature in enumerate(GRID):
            logs = (scores * (sharpness / temperature)).log_softmax(1)
            losses[i] -= logs.gather(1, answers[:, None]).sum().double()
    return round(GRID[int(losses.argmin())], 4)


def filtered(learner: Learner, facts: Array, index: int) -> list[tuple[Tensor, Tensor]]:
    """Blocks of (scores [fact, entity] without other known answers, right answers [fact]), of a sample of the facts."""
    rows = np.random.default_rng(0).permutation(len(facts))[: MOST // 2]
    return list(ranked_scores(learner.ranker, learner.answers, facts[np.sort(rows)], by=index))
