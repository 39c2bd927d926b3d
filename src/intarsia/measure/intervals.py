"""95 % intervals by the bootstrap over groups: what belongs together (a module, a dialogue) is drawn together.

Source: Efron & Tibshirani 1993, ch. 13 (percentile interval); ratios of sums are drawn as ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from intarsia.measure.quality_parts import Interval


def group_numbers(groups: Sequence[str | None]) -> np.ndarray:
    """Each record's group as a number. Records without a group, or a single group, stand for themselves."""
    names = {g for g in groups if g is not None}
    if len(names) < 2:
        return np.arange(len(groups))
    number = {g: i for i, g in enumerate(sorted(names))}
    alone = iter(range(len(names), len(names) + len(groups)))
    found = [number[g] if g is not None else next(alone) for g in groups]
    return np.unique(found, return_inverse=True)[1]


def bootstrap(
    totals: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, draws: int = 2000, seed: int = 0
) -> np.ndarray:
    """The ends [2, ...] of the 95 % interval of a statistic of sums.

    - totals: [group, ...]: what each group adds (a confusion matrix, a summed loss and a count).
    - statistic: from sums [draw, ...] to values [draw, ...]."""
    groups = totals.shape[0]
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=draws)
    sums = (drawn @ totals.reshape(groups, -1)).reshape(draws, *totals.shape[1:])
    return np.quantile(statistic(sums), [0.025, 0.975], axis=0)


def sum_by_group(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Sums [group, ...] of per-record values [record, ...]."""
    out = np.zeros((int(numbers.max()) + 1, *values.shape[1:]))
    np.add.at(out, numbers, values)
    return out


def with_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[str | None],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """A scalar statistic of summed per-record values [record, ...] with its interval."""
    low, high = bootstrap(sum_by_group(values, group_numbers(groups)), statistic, draws=draws, seed=seed)
    return float(statistic(values.sum(0)[None])[0]), float(low), float(high)
