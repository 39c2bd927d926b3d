"""Correlations of two rankings: Pearson, Spearman, Kendall's tau-b. NaN where one of the two does not vary."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r of two vectors."""
    a, b = (np.asarray(v, dtype=np.float64) - np.mean(np.asarray(v, dtype=np.float64)) for v in (x, y))
    size = np.sqrt((a**2).sum() * (b**2).sum())
    # Rounding leaves a constant vector with a size of about 1e-17 times its values.
    if np.sqrt((a**2).sum()) <= 1e-12 * np.abs(x).max() or np.sqrt((b**2).sum()) <= 1e-12 * np.abs(y).max():
        return float("nan")
    return float(np.clip((a * b).sum() / size, -1, 1))


def ranks(x: ArrayLike) -> np.ndarray:
    """Ranks from 1 (smallest); equal values share the mean of their ranks."""
    _, place, counts = np.unique(np.asarray(x, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho: Pearson's r of the ranks."""
    return pearson(ranks(x), ranks(y))


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b: (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)."""
    a, b = (np.sign(np.subtract.outer(np.asarray(v, np.float64), np.asarray(v, np.float64))) for v in (x, y))
    size = np.sqrt((a != 0).sum() * (b != 0).sum())
    return float((a * b).sum() / size) if size else float("nan")
