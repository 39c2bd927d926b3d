"""Scores of patched generations, each beside the control under the same number of tries.

A grid of cells gives many tries, and some text will hold the object by luck or by the target prompt alone. So a score
over cells ("any cell") is always read against the same score for vectors that know nothing of the subject: Gaussian
vectors of the same norm, and the states of other subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intarsia.interpretation.patchscopes.relations import holds
from intarsia.measure.intervals import with_interval

Interval = tuple[float, float, float]


def hit_array(texts: Sequence, objects: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether texts [row][source layer][target layer] hold their row's objects, bool of that shape."""
    return np.array(
        [[[holds(text, wanted) for text in line] for line in row] for row, wanted in zip(texts, objects, strict=True)]
    )


def cross_hits(texts: Sequence, objects: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether the texts of other vectors hold each row's objects: [row, vector, source layer, target layer]."""
    return np.stack([hit_array(texts, [wanted] * len(texts)) for wanted in objects])


def mean_interval(values: np.ndarray, groups: Sequence[str], seed: int = 0) -> Interval:
    """The mean of one value a row with its 95 % interval, drawn over groups (subjects)."""
    pairs = np.stack([values.astype(float), np.ones(len(values))], axis=1)
    return with_interval(pairs, lambda sums: sums[..., 0] / sums[..., 1].clip(1e-12), groups, seed=seed)


def any_cell(hits: np.ndarray) -> np.ndarray:
    """Share of tries-at-once that succeed in at least one cell, a row: hits [row, ..., source layer, target layer]."""
    best = hits.any(axis=(-2, -1)).astype(float)
    return best.reshape(len(best), -1).mean(1)


def any_target(hits: np.ndarray) -> np.ndarray:
    """For each source layer, success in at least one target layer: [row, source layer] (the paper's score)."""
    best = hits.any(axis=-1).astype(float)
    return best if best.ndim == 2 else best.mean(axis=tuple(range(1, best.ndim - 1)))


def halves(groups: Sequence[str], seed: int) -> np.ndarray:
    """Two halves of the groups, drawn by `seed`: a bool a row."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    first = {names[i] for i in order[: len(names) // 2]}
    return np.array([group in first for group in groups])


def chosen_cell(hits: np.ndarray, groups: Sequence[str], seed: int) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Success in the one cell that is best on the other half of the subjects: a value a row, and the cell of each row.

    - hits: [row, ...]: cells in any number of axes. Ties go to the cell whose rows and columns do best."""
    first = halves(groups, seed)
    out = np.zeros(len(hits))
    own: list[tuple[int, ...]] = [()] * len(hits)
    for half in (first, ~first):
        dev = hits[half] if half.any() else hits  # a single subject is its own other half
        share = dev.astype(float).mean(0)
        around = sum(share.mean(axis=axis, keepdims=True) for axis in range(share.ndim))
        cell = tuple(int(i) for i in np.unravel_index(int(np.argmax(share + 1e-3 * around)), share.shape))
        for row in np.flatnonzero(~half):
            out[row] = hits[(row, *cell)]
            own[row] = cell
    return out, own
