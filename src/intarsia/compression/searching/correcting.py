"""Predictions put right by what was measured.

A prediction is a sum: what rounding does to each layer, and what each cut does, each by itself. What errors do together
is not in it, so it is too low, and by a factor that depends on the network, the text and the kind of cut more than on
the composition. Each draft that is measured tells about these factors: f of the parts p of draft i, whose measured harm
is m_i, so that the relative errors are least,

    sum_i (sum_k f_k p_ik / m_i - 1)^2  +  w sum_k s_k (f_k - 1)^2,     f >= 0,     s_k = mean_i (p_ik / m_i)^2

The second sum counts as a draft, w of one, in which a part was as it had been predicted: with one draft a factor goes
most of the way, and parts that no draft had keep a factor of 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PRIOR = 0.1  # w
LEAST = 1e-3  # nats: below, what is measured on a few hundred tokens is noise
SWEEPS = 200


class Correction:
    """What drafts told so far. factors: of each part, by its name."""

    def __init__(self) -> None:
        self._drafts: dict[str, tuple[dict[str, float], float]] = {}
        self.factors: dict[str, float] = {}

    def learn(self, key: str, parts: Mapping[str, float], measured: float) -> None:
        """What a draft was found to be; the last word counts.

        - key: of the draft. parts: what was predicted, in nats a token. measured: their sum."""
        self._drafts[key] = dict(parts), max(measured, LEAST)
        drafts = self._drafts.values()
        names = sorted({name for some, _ in drafts for name, value in some.items() if value > 0})
        shares = np.array([[some.get(name, 0.0) / harm for name in names] for some, harm in drafts])
        self.factors = dict(zip(names, _solved(shares).tolist(), strict=True)) if names else {}

    def __call__(self, parts: Mapping[str, float]) -> float:
        """The sum of parts, each times its factor."""
        return sum(self.factors.get(name, 1.0) * value for name, value in parts.items())


def _solved(shares: np.ndarray) -> np.ndarray:
    """f [part], for p_ik / m_i [draft, part]: one coordinate after the other."""
    firm = PRIOR * (shares**2).mean(0)
    inner = shares.T @ shares + np.diag(firm)
    wanted = shares.sum(0) + firm
    found = np.ones(shares.shape[1])
    for _ in range(SWEEPS):
        for k in range(len(found)):
            rest = inner[k] @ found - inner[k, k] * found[k]
            found[k] = max(0.0, (wanted[k] - rest) / inner[k, k])
    return found
