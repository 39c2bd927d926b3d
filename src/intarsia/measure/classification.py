"""How good label predictions are: accuracy, F1, calibration error, each with its interval, and the floor to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intarsia.errors import MissingExtra
from intarsia.measure.intervals import bootstrap, group_numbers, sum_by_group
from intarsia.measure.quality_parts import ClassQuality, Interval, LabelQuality


def judge(
    labels: Sequence[str],
    true: np.ndarray,
    probabilities: np.ndarray,
    raw: np.ndarray,
    groups: Sequence[str | None],
    *,
    mass: np.ndarray | None = None,
    cut: int = 0,
    draws: int = 2000,
    seed: int = 0,
) -> LabelQuality:
    """Compare probabilities [text, label] with true label numbers [text].

    Raises `MissingExtra` without scikit-learn."""
    try:
        from sklearn import metrics
    except ImportError:
        raise MissingExtra("measuring label quality", "quality") from None
    numbers = np.arange(len(labels))
    best = probabilities.argmax(1)
    confusion = metrics.confusion_matrix(true, best, labels=numbers)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, best, labels=numbers, zero_division=0.0
    )
    # Sums of one-hot confusion matrices by group: the bootstrap draws groups and never touches a record again.
    one_hot = np.zeros((len(true), len(labels), len(labels)))
    one_hot[np.arange(len(true)), true, best] = 1
    group_of = group_numbers(groups)
    of_group = sum_by_group(one_hot, group_of)

    def ends(statistic) -> np.ndarray:
        return bootstrap(of_group, statistic, draws=draws, seed=seed)

    def interval(value: float, statistic) -> Interval:
        low, high = ends(statistic)
        return float(value), float(low), float(high)

    f1_ends = ends(class_f1)
    floor = int(np.bincount(true, minlength=len(labels)).argmax())
    always = np.full(len(true), floor)
    present = sorted(set(true.tolist()) | set(best.tolist()))
    raw_best = raw.argmax(1)
    return LabelQuality(
        n=len(true),
        groups=len(of_group),
        accuracy=interval(metrics.accuracy_score(true, best), accuracy),
        weighted_f1=interval(metrics.f1_score(true, best, average="weighted", zero_division=0.0), weighted_f1),
        macro_f1=interval(metrics.f1_score(true, best, labels=present, average="macro", zero_division=0.0), macro_f1),
        ece=expected_calibration_error(probabilities, true),
        floor_label=labels[floor],
        floor_accuracy=float(metrics.accuracy_score(true, always)),
        floor_weighted_f1=float(metrics.f1_score(true, always, average="weighted", zero_division=0.0)),
        raw_accuracy=float(metrics.accuracy_score(true, raw_best)),
        raw_weighted_f1=float(metrics.f1_score(true, raw_best, average="weighted", zero_division=0.0)),
        mass=None if mass is None or np.isnan(mass).any() else float(mass.mean()),
        cut=cut,
        classes=[
            ClassQuality(
                label=label,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=(float(f1[i]), float(f1_ends[0, i]), float(f1_ends[1, i])),
                support=int(support[i]),
            )
            for i, label in enumerate(labels)
        ],
        confusion=confusion.tolist(),
        truth=true.tolist(),
        answers=best.tolist(),
        group_of=group_of.tolist(),
    )


def gains(after: LabelQuality, before: LabelQuality, *, draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """How much better one model is than another on the same texts: difference and 95 % interval, by figure.

    The bootstrap is paired: each draw of groups is judged for both models, so that what is hard about a group falls
    out of the difference (Efron & Tibshirani 1993, ch. 16). Empty when the two were not measured on the same texts."""
    if after.truth != before.truth or after.group_of != before.group_of or not after.truth:
        return {}
    true, count = np.array(after.truth), len(after.classes)
    both = np.zeros((len(true), 2, count, count))
    for side, quality in enumerate((after, before)):
        both[np.arange(len(true)), side, true, np.array(quality.answers)] = 1
    of_group = sum_by_group(both, np.array(after.group_of))
    whole = both.sum(0)[None]
    out = {}
    for name, figure in (("weighted_f1", weighted_f1), ("accuracy", accuracy), ("macro_f1", macro_f1)):

        def difference(sums: np.ndarray, figure=figure) -> np.ndarray:
            return figure(sums[..., 0, :, :]) - figure(sums[..., 1, :, :])

        low, high = bootstrap(of_group, difference, draws=draws, seed=seed)
        out[name] = (float(difference(whole)[0]), float(low), float(high))
    return out


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Of confusion counts [..., true, predicted]."""
    total = confusion.sum((-2, -1))
    return np.trace(confusion, axis1=-2, axis2=-1) / np.maximum(total, 1)


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 [..., label] of confusion counts; 0 for a label that occurs nowhere."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return 2 * hits / np.maximum(confusion.sum(-1) + confusion.sum(-2), 1)


def weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 averaged with each label's share of the true labels."""
    support = confusion.sum(-1)
    return (class_f1(confusion) * support).sum(-1) / np.maximum(support.sum(-1), 1)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 averaged over the labels that occur in truth or prediction."""
    occurs = (confusion.sum(-1) + confusion.sum(-2)) > 0
    return (class_f1(confusion) * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1)


def expected_calibration_error(probabilities: np.ndarray, true: np.ndarray, bins: int = 10) -> float:
    """Mean gap between the top probability and how often it is right, over equal bins weighted by their texts."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs((confidence - right)[bin_of == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(true))
