"""Means over texts with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intarsia.measure.intervals import with_interval
from intarsia.measure.quality_parts import Interval


def mean(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> Interval:
    """The mean of one value a text, and the bootstrap's 95 % interval over texts (or over groups of them)."""
    kept = np.asarray(values, dtype=np.float64)
    pairs = np.stack([kept, np.ones_like(kept)], axis=1)
    groups = groups if groups is not None else [None] * len(kept)
    return with_interval(pairs, lambda s: s[..., 0] / np.maximum(s[..., 1], 1), groups, draws=draws, seed=seed)
