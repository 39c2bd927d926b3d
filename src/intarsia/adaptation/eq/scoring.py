"""The formulas of the EQ test.

Source: Wang et al. 2023, "Emotional Intelligence of Large Language Models" (SECEU), arXiv 2307.09042: §2."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

MEAN, DEVIATION = 2.79, 0.822
"""Of people's distances to the standard scores. DialogueLLM prints a deviation of 15; its table follows from this."""


def distances(scores: np.ndarray, human: np.ndarray) -> np.ndarray:
    """[item]: Euclidean distances of scores [item, option] to people's."""
    return np.sqrt(np.square(scores - human).sum(1))


def quotient(distance: float) -> float:
    """EQ = 100 + 15 (2.79 - s) / 0.822, of the mean distance s over the items."""
    return 100 + 15 * (MEAN - distance) / DEVIATION


def percentile(eq: float) -> float:
    """Share of people below an EQ, in percent, if people's EQs are normal with mean 100 and deviation 15."""
    return 100 * NormalDist(100, 15).cdf(eq)


def similarity(distances: Sequence[float], template: Sequence[float]) -> float | None:
    """Pearson's correlation of a model's distances with the human template's; None where one of the two is constant."""
    a, b = np.asarray(distances, float), np.asarray(template, float)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-12 else None
