"""Several labellers as one: log p(y) ~ sum of weight times log p of each, plus a bias for each label.

The weights are those that make the labels of dev most probable, held to be no less than zero and drawn towards equal
shares, so that a small dev split cannot send them far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.measure.likelihood import log_softmax

SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0)
PULL = 0.02  # strength of the pull towards equal weights and no bias, per labeller and label


@dataclass(frozen=True)
class Mix:
    """- weights: by labeller's name. bias: [label]."""

    weights: dict[str, float]
    bias: list[float]

    def scores(self, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """[record, label] log probabilities, from those of the labellers by name."""
        return log_softmax(sum(weight * given[name] for name, weight in self.weights.items()) + np.asarray(self.bias))


def equal(names: Sequence[str], labels: int) -> Mix:
    """Equal shares and no bias: where there is nothing to choose by."""
    return Mix({name: 1 / len(names) for name in names}, [0.0] * labels)


def fit(given: Mapping[str, np.ndarray], labels: np.ndarray) -> Mix:
    """The mix for scores [record, label] by name and the records' labels [record]."""
    from scipy.optimize import minimize

    names, count = list(given), next(iter(given.values())).shape[1]
    stacked = np.stack([given[name] for name in names])  # [labeller, record, label]
    n, start = len(labels), np.concatenate([np.full(len(names), 1 / len(names)), np.zeros(count)])
    rows = np.arange(n)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = at[: len(names)], at[len(names) :]
        z = np.tensordot(weights, stacked, 1) + bias
        z = z - z.max(1, keepdims=True)
        p = np.exp(z)
        total = p.sum(1, keepdims=True)
        p /= total
        value = -(z[rows, labels] - np.log(total[:, 0])).mean() + PULL * np.square(at - start).sum()
        wrong = p
        wrong[rows, labels] -= 1
        slope = np.concatenate([(stacked * wrong[None]).sum((1, 2)) / n, wrong.mean(0)])
        return value, slope + 2 * PULL * (at - start)

    bounds = [(0.0, None)] * len(names) + [(None, None)] * count
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Mix(dict(zip(names, map(float, found[: len(names)]), strict=True)), list(map(float, found[len(names) :])))


def shifted(
    mix: Mix, given: Mapping[str, np.ndarray], labels: np.ndarray, log_prior: np.ndarray,
    figure: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[Mix, float]:  # fmt: skip
    """The mix with tau times the log prior taken off, for the tau that is best on dev, and that tau (the least among
    equals)."""
    scores = mix.scores(given)
    tau = max(SHIFTS, key=lambda t: (round(figure(scores - t * log_prior, labels), 9), -t))
    bias = np.asarray(mix.bias) - tau * log_prior
    return Mix(mix.weights, list(map(float, bias))), tau
