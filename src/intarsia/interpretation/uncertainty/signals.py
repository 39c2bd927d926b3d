"""The signals of being unsure, as formulas over log probabilities, clusters and similarities. Nats throughout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def entropy(shares: Sequence[float] | np.ndarray) -> float:
    """Entropy of shares that sum to 1."""
    p = np.asarray(shares, dtype=np.float64)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum()) + 0.0


def cluster_shares(clusters: Sequence[int], weights: Sequence[float] | None = None) -> np.ndarray:
    """Share of each cluster: of the samples, or of their weights. `clusters` numbers each sample's cluster from 0."""
    of = np.asarray(clusters)
    w = np.ones(len(of)) if weights is None else np.asarray(weights, dtype=np.float64)
    return np.bincount(of, weights=w) / w.sum()


def semantic_entropy(mean_log_probs: Sequence[float], clusters: Sequence[int]) -> float:
    """Entropy over meanings: a cluster has the probability of its samples, normalised over all samples drawn.

    mean_log_probs: length-normalised log probability of each sample. Kuhn et al. 2023, equations 2-4, in the form of
    Farquhar et al. 2024 (Rao's estimate)."""
    log_p = np.asarray(mean_log_probs, dtype=np.float64)
    return entropy(cluster_shares(clusters, np.exp(log_p - log_p.max())))


def cluster_entropy(clusters: Sequence[int]) -> float:
    """Discrete semantic entropy: a cluster has the share of samples in it (Farquhar et al. 2024)."""
    return entropy(cluster_shares(clusters))


def predictive_entropy(mean_log_probs: Sequence[float]) -> float:
    """Length-normalised predictive entropy: mean of -log p over samples (Malinin & Gales 2021)."""
    return float(-np.mean(mean_log_probs))


def token_sar(log_probs: Sequence[float], relevance: Sequence[float]) -> float:
    """Sum of each token's -log p, weighted with its share of the relevance (Duan et al. 2023, equations 3-5).

    relevance: 1 - similarity of the text with and without the token; all 0 counts as all alike."""
    r = np.asarray(relevance, dtype=np.float64)
    r = np.full_like(r, 1 / len(r)) if r.sum() <= 0 else r / r.sum()
    return float(-(np.asarray(log_probs, dtype=np.float64) * r).sum())


def sar(token_sars: Sequence[float], similarity: np.ndarray, temperature: float = 0.001) -> float:
    """SAR over samples: tokens weighted by relevance, samples by how much the others resemble them.

    With p_j = exp(-token SAR) of sample j and g its similarity [sample, sample]: mean over j of
    -log(p_j + sum over k != j of g_jk p_k / temperature). Duan et al. 2023, equations 6-9 with p' in place of p."""
    p = np.exp(-np.asarray(token_sars, dtype=np.float64))
    others = similarity * (1 - np.eye(len(p)))
    return float(-np.log(p + others @ p / temperature).mean())
