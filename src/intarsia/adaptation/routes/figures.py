"""The figures that a rung is judged by, and which of them count as equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intarsia.measure.classification import accuracy, macro_f1, weighted_f1
from intarsia.measure.intervals import group_numbers, sum_by_group, with_interval
from intarsia.measure.quality_parts import Interval

FIGURES = {"weighted_f1": weighted_f1, "macro_f1": macro_f1, "accuracy": accuracy}
TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)
DRAWS = 1000


def value(figure: str, scores: np.ndarray, true: np.ndarray) -> float:
    """A figure of scores [record, label], of which the highest is the answer."""
    counts = np.zeros((scores.shape[1], scores.shape[1]))
    np.add.at(counts, (true, scores.argmax(1)), 1)
    return float(FIGURES[figure](counts))


def figures(
    answers: Sequence[int], true: np.ndarray, labels: int, groups: Sequence[str | None], seed: int
) -> dict[str, Interval]:
    """All figures with their 95 % intervals, by the bootstrap over groups (dialogues)."""
    counts = one_hot(answers, true, labels)
    return {name: with_interval(counts, figure, groups, draws=DRAWS, seed=seed) for name, figure in FIGURES.items()}


def one_hot(answers: Sequence[int], true: np.ndarray, labels: int) -> np.ndarray:
    """[record, true, answered], one 1 a record."""
    out = np.zeros((len(true), labels, labels))
    out[np.arange(len(true)), true, np.asarray(answers)] = 1
    return out


def standard_error(
    figure: str, answers: Sequence[int], others: Sequence[int], true: np.ndarray, labels: int,
    groups: Sequence[str | None], seed: int,
) -> float:  # fmt: skip
    """Of the difference between two rungs on the same records, by the paired bootstrap over groups."""
    both = np.stack([one_hot(answers, true, labels), one_hot(others, true, labels)], axis=1)
    totals = sum_by_group(both, group_numbers(groups))
    drawn = np.random.default_rng(seed).multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=DRAWS)
    sums = (drawn @ totals.reshape(len(totals), -1)).reshape(DRAWS, *totals.shape[1:])
    return float(np.std(FIGURES[figure](sums[:, 0]) - FIGURES[figure](sums[:, 1])))


def shift(figure: str, scores: np.ndarray, true: np.ndarray, log_prior: np.ndarray, sign: float) -> tuple[float, float]:
    """The tau for which scores + sign * tau * log prior are best, the least among equals; and that figure.

    Scores without a prior get it added (sign +1), those that were trained on the labels have one to give up (-1)."""
    values = [value(figure, scores + sign * tau * log_prior, true) for tau in TAUS]
    best = max(range(len(TAUS)), key=lambda i: (round(values[i], 12), -i))
    return TAUS[best], values[best]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    top = scores.max(-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(-1, keepdims=True))
