"""The linear probe: logistic regression on standardised states, its strength chosen inside the training part."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from intarsia.errors import BadInput, MissingExtra

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def sklearn() -> Any:
    """scikit-learn, or `MissingExtra`."""
    try:
        import sklearn.linear_model
        import sklearn.model_selection
    except ImportError:
        raise MissingExtra("fitting a probe", "quality") from None
    return sklearn


@dataclass(frozen=True)
class Classifier:
    """Softmax of (x - mean) / scale @ weights + bias over the class numbers `classes`, out of `count` classes."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    count: int

    def log_probabilities(self, x: np.ndarray) -> np.ndarray:
        """[n, count]; minus infinity for classes it never saw."""
        scores = ((x - self.mean) / self.scale) @ self.weights + self.bias
        scores = scores - scores.max(1, keepdims=True)
        out = np.full((len(x), self.count), -np.inf)
        out[:, self.classes] = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        return out

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class numbers [n]."""
        return self.log_probabilities(x).argmax(1)


def fit(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, count: int, *, strength: float = 0.0, seed: int = 0
) -> Classifier:
    """The probe of states x [n, width] and class numbers y [n] in 0..count-1.

    - strength: inverse strength of the penalty (scikit-learn's C); 0 chooses among `STRENGTHS` on a quarter of the
      groups, held out from x itself.
    - groups [n]: what belongs together. A class that is missing in y gets no probability."""
    if strength == 0.0:
        strength = _chosen(x, y, groups, count, seed)
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-8 * max(1e-30, float(scale.max(initial=0.0))), scale, 1.0)
    classes = np.unique(y)
    if len(classes) == 1:
        return Classifier(mean, scale, np.zeros((x.shape[1], 1)), np.zeros(1), classes, count)
    model = sklearn().linear_model.LogisticRegression(C=strength, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops after 300 steps is still a probe
        model.fit((x - mean) / scale, y)
    weights, bias = model.coef_.T, model.intercept_
    if len(classes) == 2:
        weights, bias = np.concatenate([-weights / 2, weights / 2], 1), np.array([-bias[0] / 2, bias[0] / 2])
    return Classifier(mean, scale, weights, bias, classes, count)


def _chosen(x: np.ndarray, y: np.ndarray, groups: np.ndarray, count: int, seed: int) -> float:
    folds = split(y, groups, 4, seed)
    held = folds == 0
    if len(np.unique(y[~held])) < 2 or not held.any():
        return STRENGTHS[1]
    scores = []
    for strength in STRENGTHS:
        log_p = fit(x[~held], y[~held], groups[~held], count, strength=strength).log_probabilities(x[held])
        scores.append(np.maximum(log_p[np.arange(held.sum()), y[held]], -10.0).mean())
    return STRENGTHS[int(np.argmax(scores))]


def split(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold number [n] of each record: classes as even as whole groups allow."""
    count = len(np.unique(groups))
    if count < 2:
        raise BadInput("a probe wants records of two groups or more: all of them belong to one group")
    folds = min(folds, count)
    selection = sklearn().model_selection
    out = np.empty(len(y), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rare classes cannot be in every fold
        if count == len(y):
            parts = selection.StratifiedKFold(folds, shuffle=True, random_state=seed)
            parts = parts.split(y, y) if np.bincount(y).max() >= folds else selection.KFold(
                folds, shuffle=True, random_state=seed).split(y)  # fmt: skip
        else:
            parts = selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, groups)
        for number, (_, test) in enumerate(parts):
            out[test] = number
    return out


def cross_validated(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, folds: np.ndarray, count: int, *, strength: float, seed: int
) -> np.ndarray:
    """Class numbers [n] predicted for each record by a probe that was fitted on the other folds."""
    out = np.empty(len(y), dtype=int)
    for number in np.unique(folds):
        test = folds == number
        probe = fit(x[~test], y[~test], groups[~test], count, strength=strength, seed=seed)
        out[test] = probe.predict(x[test])
    return out
