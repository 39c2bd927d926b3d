"""Scores of a text from what a language model thinks of its tokens. Each is higher for text that a machine wrote.

Sources: log-likelihood, rank, log-rank and entropy: Gehrmann et al. 2019, GLTR; Mitchell et al. 2023, DetectGPT, §5;
LRR: Su et al. 2023, DetectLLM, eq. 1; curvature: Bao et al. 2024, Fast-DetectGPT, eq. 5; Binoculars: Hans et al. 2024,
eq. 4 (numerator and denominator over the same positions)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from intarsia.detection.statistics.tokens import TokenStatistics

Score = Callable[[TokenStatistics], float]


def loglik(of: TokenStatistics) -> float:
    """Mean l."""
    return float(of.log_probability.mean())


def rank(of: TokenStatistics) -> float:
    """Minus the mean rank."""
    return -float(of.rank.mean())


def logrank(of: TokenStatistics) -> float:
    """Minus the mean log rank."""
    return -float(np.log(of.rank).mean())


def lrr(of: TokenStatistics) -> float:
    """Log-likelihood to log-rank ratio: -sum l / sum log r. Where every token is the most probable one, the sum of log
    ranks counts as that of a single token of rank 2."""
    return -float(of.log_probability.sum() / max(np.log(of.rank).sum(), np.log(2)))


def neg_entropy(of: TokenStatistics) -> float:
    """Minus the mean entropy."""
    return -float(of.entropy.mean())


def neg_var(of: TokenStatistics) -> float:
    """Minus the mean variance of log q."""
    return -float(of.variance.mean())


def top1(of: TokenStatistics) -> float:
    """Share of tokens that are the most probable one."""
    return float((of.rank == 1).mean())


def top10(of: TokenStatistics) -> float:
    """Share of tokens among the ten most probable."""
    return float((of.rank <= 10).mean())


def curvature(of: TokenStatistics) -> float:
    """Fast-DetectGPT, analytic: (sum l - sum m) / sqrt(sum s2)."""
    return float((of.log_probability.sum() - of.mean.sum()) / np.sqrt(max(of.variance.sum(), 1e-12)))


def binoculars(of: TokenStatistics) -> float:
    """Minus the ratio of log-perplexity to log-cross-perplexity, sum l / sum m."""
    return -float(of.log_probability.sum() / min(of.mean.sum(), -1e-12))


SCORES: dict[str, Score] = {
    score.__name__: score
    for score in (loglik, rank, logrank, lrr, neg_entropy, neg_var, top1, top10, curvature, binoculars)
}
"""The scores by name."""

RANKS = (10, 100, 1000)


def rank_shares(of: TokenStatistics) -> np.ndarray:
    """GLTR's four features: the shares of tokens of rank 1-10, 11-100, 101-1000, and beyond."""
    return np.bincount(np.searchsorted(RANKS, of.rank), minlength=4) / len(of)
