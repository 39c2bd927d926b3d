"""Conformal p-values: how many texts of people score as high as this one.

Source: Vovk et al. 2005, "Algorithmic Learning in a Random World", §2.2 (p-values), §4.5 (by category); Clopper and
Pearson 1934."""

from __future__ import annotations

import math

import numpy as np

from intarsia.errors import BadInput


def p_values(scores: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """(1 + the number of the bank's scores that are as high or higher) / (n + 1), for each score.

    Where a text is exchangeable with the bank's, P(p <= alpha) <= alpha. Without a bank, 1."""
    ordered = np.sort(np.asarray(bank, dtype=float))
    above = len(ordered) - np.searchsorted(ordered, np.asarray(scores, dtype=float), side="left")
    return (1 + above) / (len(ordered) + 1)


def smallest_rate(n: int) -> float:
    """The smallest false-positive rate that a bank of n texts can vouch for."""
    return 1 / (n + 1)


def wanted(rate: float) -> int:
    """How many texts a bank needs to vouch for a false-positive rate. Raises `BadInput` outside of 0 to 1."""
    if not 0 < rate < 1:
        raise BadInput(f"a false-positive rate lies between 0 and 1; given: {rate}")
    return math.ceil(1 / rate - 1 - 1e-9)


def threshold(bank: np.ndarray, rate: float) -> float:
    """The score above which a text is flagged at this false-positive rate: the ceil((n + 1)(1 - rate))-th smallest of
    the bank's. Infinite where the bank is too small to vouch for it."""
    n = len(bank)
    place = math.ceil((n + 1) * (1 - rate) - 1e-9)
    return float(np.sort(bank)[place - 1]) if 1 <= place <= n else math.inf


def rate_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """A rate with its exact two-sided interval (Clopper-Pearson)."""
    from scipy.stats import beta

    if n == 0:
        return math.nan, 0.0, 1.0
    out = (1 - level) / 2
    low = float(beta.ppf(out, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - out, hits + 1, n - hits)) if hits < n else 1.0
    return hits / n, low, high


def predictive_value(base: float, found: float, false: float) -> float:
    """Share of flagged texts that are a machine's, where a share `base` of all texts is: base * found / (base * found +
    (1 - base) * false), from the rates at which the machine's texts and people's are flagged."""
    flagged = base * found + (1 - base) * false
    return base * found / flagged if flagged else math.nan


def benjamini_hochberg(p: np.ndarray, rate: float) -> np.ndarray:
    """[test] whether each is rejected when at most a share `rate` of the rejected are to be wrong (Benjamini & Hochberg
    1995; Benjamini & Yekutieli 2001 for overlapping windows, which depend on each other positively)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / max(1, len(p)))
    out = np.zeros(len(p), dtype=bool)
    if len(passed):
        out[order[: passed[-1] + 1]] = True
    return out
