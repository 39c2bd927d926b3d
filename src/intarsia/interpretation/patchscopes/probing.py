"""The probe that an attribute patchscope is compared with: logistic regression on the same states, subjects held out.

Source: Ghandeharioun et al. 2024, section 4.2. Their folds are over sentences; here they are over subjects, since a
probe that has seen a subject may remember it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from intarsia.errors import MissingExtra


def folds_of(subjects: Sequence[str], count: int, seed: int) -> np.ndarray:
    """A fold for each row, the rows of a subject together."""
    names = sorted(set(subjects))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[i]: place % count for place, i in enumerate(order)}
    return np.array([fold[subject] for subject in subjects])


def probe(
    states: Tensor, labels: Sequence[str], subjects: Sequence[str], *, folds: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong [row, layer] of a multinomial logistic regression on standardised states [row, layer, width], each
    row judged by the fit that has not seen its subject; and the same [row] for naming the most common label."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingExtra("the probe", "quality") from None
    data, names = states.double().cpu().numpy(), np.array(labels)
    right = np.zeros(data.shape[:2], dtype=bool)
    common = np.zeros(len(data), dtype=bool)
    fold = folds_of(subjects, folds, seed)
    for number in range(folds):
        train, test = fold != number, fold == number
        if not train.any() or not test.any():
            continue
        values, counts = np.unique(names[train], return_counts=True)
        common[test] = names[test] == values[counts.argmax()]
        for layer in range(data.shape[1]):
            if len(values) == 1:
                right[test, layer] = names[test] == values[0]
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fit = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
                fit.fit(data[train, layer], names[train])
            right[test, layer] = fit.predict(data[test, layer]) == names[test]
    return right, common
