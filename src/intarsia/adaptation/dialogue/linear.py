"""Multinomial logistic regression by L-BFGS, its strength and its class weights chosen on other records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.measure.likelihood import log_softmax

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
EXPONENTS = (0.0, 0.5)


@dataclass(frozen=True)
class Linear:
    """log p(label | x) = log softmax(W z + b), z = (x - mean) / spread.

    - weight: [label, width]; bias: [label]. mean, spread: [width]."""

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """[record, label] log probabilities of features [record, width]."""
        return log_softmax((features - self.mean) / self.spread @ self.weight.T + self.bias)

    @staticmethod
    def fit(
        features: np.ndarray, labels: np.ndarray, count: int, *, strength: float, exponent: float = 0.0,
        groups: Sequence[slice] = (), steps: int = 100,
    ) -> Linear:  # fmt: skip
        """Minimise the mean of w(y) times the cross-entropy, plus |W|^2 / (2 strength n).

        - features: [record, width]; labels: [record] numbers below `count`.
        - exponent e: w(y) = frequency(y)^-e, scaled to mean 1 over the records.
        - groups: columns that were measured on one scale: each is centred and divided by one spread for all its
          columns. Default: all columns are one group."""
        import torch

        mean = features.mean(0, dtype=np.float64).astype(np.float32)
        spread = np.ones(features.shape[1], np.float32)
        for columns in groups or (slice(None),):
            spread[columns] = max(1e-6, float((features[:, columns] - mean[columns]).std()))
        x = torch.from_numpy(((features - mean) / spread).astype(np.float32))
        y = torch.from_numpy(np.asarray(labels, np.int64))
        n = len(y)
        frequency = torch.bincount(y, minlength=count).double()
        weights = frequency.clamp(min=1) ** -exponent
        each = (weights / (weights * frequency).sum() * n)[y].float()
        weight = torch.zeros(count, x.shape[1], requires_grad=True)
        bias = torch.zeros(count, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-7
        )

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            each_loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="none")
            loss = (each_loss * each).mean() + weight.square().sum() / (2 * strength * n)
            loss.backward()
            return loss

        optimiser.step(closure)
        return Linear(weight.detach().numpy(), bias.detach().numpy(), mean, spread)


@dataclass(frozen=True)
class Chosen:
    """The fit, and what was chosen for it."""

    linear: Linear
    strength: float
    exponent: float


def choose(
    features: np.ndarray, labels: np.ndarray, count: int, dev: tuple[np.ndarray, np.ndarray] | None,
    figure: Callable[[np.ndarray, np.ndarray], float], *, groups: Sequence[slice] = (),
    strengths: Sequence[float] = STRENGTHS, exponents: Sequence[float] = EXPONENTS,
) -> Chosen:  # fmt: skip
    """Fit with each strength and exponent, and keep what is best on dev; without dev, the middle of both.

    - dev: (features, labels). figure: of (scores [record, label], labels), greater is better."""
    if dev is None:
        strength, exponent = strengths[len(strengths) // 2], exponents[0]
        fitted = Linear.fit(features, labels, count, strength=strength, exponent=exponent, groups=groups)
        return Chosen(fitted, strength, exponent)
    best: tuple[float, Chosen] | None = None
    for exponent in exponents:
        for strength in strengths:
            fitted = Linear.fit(features, labels, count, strength=strength, exponent=exponent, groups=groups)
            value = figure(fitted.scores(dev[0]), dev[1])
            if best is None or value > best[0]:
                best = value, Chosen(fitted, strength, exponent)
    assert best is not None
    return best[1]
