"""How much each voice counts, by the length of the text: weights that are never negative, so that no voice is heard
against its meaning, fitted on domains that the voices were not trained on.

What cannot be weighed so, since unseen domains have none of it (references of a text's topic), stands in a sum of its
own. Sums are standardised among people's texts and joined by log sum exp: nearly the larger of them.

Source: own. Stacked generalisation: Wolpert 1992; non-negative weights: Breiman 1996, "Stacked Regressions"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORT, LONG = 30.0, 160.0  # words: between them weights go from the short text's to the long text's, by log length
RIDGE = 1e-2


@dataclass
class Weights:
    """- voices: their names. short, long: [voice] what each counts for in texts of 30 words and of 160 or more."""

    voices: tuple[str, ...]
    short: np.ndarray
    long: np.ndarray

    def of(self, words: int, heard: Sequence[str] | None = None) -> np.ndarray:
        """[voice] for a text of so many words; voices that are not `heard` count nothing."""
        return self.at(np.array([words]), heard)[0]

    def at(self, words: np.ndarray, heard: Sequence[str] | None = None) -> np.ndarray:
        """[text, voice] for texts of so many words [text]."""
        share = _share(words)[:, None]
        weights = (1 - share) * self.short + share * self.long
        if heard is not None:
            weights = np.where([voice in heard for voice in self.voices], weights, 0.0)
        return weights

    @staticmethod
    def fit(
        voices: Sequence[str], z: np.ndarray, words: np.ndarray, machine: np.ndarray, importance: np.ndarray,
        ridge: float = RIDGE,
    ) -> Weights:  # fmt: skip
        """The weights under which a logistic model best tells the machine's texts.

        - z: [row, voice] standard scores among people's texts of the same domain and length; NaN where a voice says
          nothing, which counts as people's mean; a voice that never says anything gets no weight. words: [row].
        - machine: [row]. importance: [row], of mean 1.

        Minimises the weighted mean of log(1 + exp(-y (b + sum_k w_k(words) e(z_k)))) + ridge * sum w^2 over w >= 0, e
        being `evidence`."""
        from scipy.optimize import minimize

        heard = ~np.isnan(z).all(0)
        share = _share(words)[:, None]
        told = evidence(np.nan_to_num(z[:, heard]))
        both = np.concatenate([told * (1 - share), told * share], 1)
        sign = np.where(machine, 1.0, -1.0)
        importance = importance / importance.sum()

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            bias, weights = parameters[0], parameters[1:]
            margin = sign * (bias + both @ weights)
            value = importance @ np.logaddexp(0, -margin) + ridge * weights @ weights
            pull = -importance * sign / (1 + np.exp(np.clip(margin, -500, 500)))
            return value, np.concatenate([[pull.sum()], both.T @ pull + 2 * ridge * weights])

        count = int(heard.sum())
        start = np.concatenate([[0.0], np.full(2 * count, 1 / count)])
        bounds = [(None, None), *[(0, None)] * (2 * count)]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
        short, long = np.zeros(len(voices)), np.zeros(len(voices))
        short[heard], long[heard] = found[1 : 1 + count], found[1 + count :]
        return Weights(tuple(voices), short, long)


def joined(sums: np.ndarray) -> np.ndarray:
    """[...] one score of standardised sums [..., sum]: log sum exp."""
    return np.logaddexp.reduce(sums, axis=-1)


def evidence(z: np.ndarray) -> np.ndarray:
    """log(1 + exp z): what a standard score adds. One below people's mean adds next to nothing and takes nothing away:
    machines differ, and what one voice does not hear of this one, another may. NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.logaddexp(0.0, z)


def _share(words: np.ndarray) -> np.ndarray:
    """From 0 at `SHORT` words to 1 at `LONG`."""
    return np.clip(np.log(np.asarray(words) / SHORT) / np.log(LONG / SHORT), 0, 1)
