"""How well a signal tells wrong answers from right ones: AUROC, calibration error, risk against coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from intarsia.measure.intervals import group_numbers
from intarsia.measure.quality_parts import Interval


def auroc(unsure: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong answer's value is above a right one's; ties count half. NaN with one kind only."""
    unsure, wrong = np.asarray(unsure, dtype=np.float64), np.asarray(wrong, dtype=bool)
    if wrong.all() or not wrong.any():
        return float("nan")
    gaps = unsure[wrong][:, None] - unsure[~wrong][None]
    return float((gaps > 0).mean() + 0.5 * (gaps == 0).mean())


def expected_error(probability: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean gap between a probability of being right and how often it is, over equal bins
    weighted by their answers (Guo et al. 2017)."""
    probability, right = np.asarray(probability, dtype=np.float64), np.asarray(right, dtype=np.float64)
    of = np.minimum((probability * bins).astype(int), bins - 1)
    sums = np.bincount(of, weights=probability - right, minlength=bins)
    return float(np.abs(sums).sum() / len(right))


def risk_coverage(unsure: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """[n]: share of wrong answers among the k surest, for k = 1 ... n. Where values tie, the mean over their orders."""
    unsure, wrong = np.asarray(unsure, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    _, tied, counts = np.unique(unsure, return_inverse=True, return_counts=True)
    mean = np.bincount(tied, weights=wrong) / counts
    errors = np.repeat(mean, counts)  # in order of the value
    return errors.cumsum() / np.arange(1, len(errors) + 1)


def aurc(unsure: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk-coverage curve: mean of the risks over all coverages (Geifman & El-Yaniv 2017)."""
    return float(risk_coverage(unsure, wrong).mean())


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    values: np.ndarray,
    wrong: np.ndarray,
    groups: Sequence[str | None],
    *,
    draws: int = 500,
    seed: int = 0,
) -> Interval:
    """A statistic of (values, wrong) with the bootstrap's 95 % interval; groups are drawn whole. Draws that hold one
    kind of answer only, for which an AUROC says nothing, are left out."""
    numbers = group_numbers(groups)
    members = [np.flatnonzero(numbers == g) for g in range(int(numbers.max()) + 1)]
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = np.concatenate([members[g] for g in generator.integers(len(members), size=len(members))])
        found.append(statistic(values[rows], wrong[rows]))
    kept = [value for value in found if not np.isnan(value)]
    point = statistic(values, wrong)
    low, high = np.quantile(kept, [0.025, 0.975]) if kept else (point, point)
    return float(point), float(low), float(high)
