"""Rankings into one, by ranks or by scores; and spread out.

Sources: Cormack, Clarke & Buettcher 2009, "Reciprocal Rank Fusion" (the sum, and 60); Bruch, Gai & Ingber 2023, "An
Analysis of Fusion Functions for Hybrid Retrieval" (the convex combination of scores brought to 0..1); Carbonell &
Goldstein 1998 (maximal marginal relevance)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CONSTANT = 60
"""What is added to a rank: the larger it is, the less the first places count."""


def fused(rankings: Mapping[str, Sequence[int]], weights: Mapping[str, float]) -> dict[int, float]:
    """Each item's sum of weight / (60 + rank) over the rankings that hold it (ranks from 1), the best first."""
    out: dict[int, float] = {}
    for name, ranking in rankings.items():
        for rank, item in enumerate(ranking, 1):
            out[item] = out.get(item, 0.0) + weights.get(name, 1.0) / (CONSTANT + rank)
    return dict(sorted(out.items(), key=lambda pair: -pair[1]))


def combined(rankings: Mapping[str, Mapping[int, float]], weights: Mapping[str, float]) -> dict[int, float]:
    """Each item's mean, by weight, of its scores in the rankings, the best first. In each ranking the best item has 1,
    the last one 0, and one that it does not hold 0 too."""
    out: dict[int, float] = {}
    total = sum(weights[name] for name in rankings)
    for name, scores in rankings.items():
        if not scores:
            continue
        low, high = min(scores.values()), max(scores.values())
        for item, score in scores.items():
            share = (score - low) / (high - low) if high > low else 1.0
            out[item] = out.get(item, 0.0) + weights[name] / total * share
    return dict(sorted(out.items(), key=lambda pair: -pair[1]))


def spread(scores: Array, vectors: Array, k: int, diversity: float) -> list[int]:
    """Places of k items, each with most of (1 - diversity) * score - diversity * likeness to one that was taken.

    - scores: [item], brought to 0..1 here. vectors: [item, width], of length one; a row of zeros is like none."""
    low, high = float(scores.min()), float(scores.max())
    worth = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    like = np.full(len(scores), -1.0)
    left, out = np.ones(len(scores), bool), []
    while left.any() and len(out) < k:
        gain = (1 - diversity) * worth - diversity * np.maximum(like, 0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        out.append(best)
        left[best] = False
        like = np.maximum(like, vectors @ vectors[best])
    return out
