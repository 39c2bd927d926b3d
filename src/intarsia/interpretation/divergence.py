"""How far two next-token distributions are apart, position by position.

Everything takes rows of log-probabilities [position, vocabulary] and gives one number a row. Differences are formed
before they are summed, and sums run in float64, so that equal inputs give exactly zero."""

from __future__ import annotations

import torch
from torch import Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Normalised log-probabilities in float32, [..., vocabulary]; stays float64 when given float64."""
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p || q) in nats, [position], float64 and never below 0."""
    return kl_terms(log_p.exp(), log_p, log_q)


def kl_terms(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """`kl` when the probabilities `p` are at hand already."""
    # A token that both exclude (-inf) has p = 0; without nan_to_num its difference would be nan.
    terms = p * torch.nan_to_num(log_p - log_q, nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    return torch.where(p > 0, terms, 0.0).sum(-1, dtype=torch.float64).clamp_min(0)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the L1 distance of two rows of probabilities: the mass that has to move, between 0 and 1, [position]."""
    return (p - q).abs().sum(-1, dtype=torch.float64) / 2


def entropy(p: Tensor, log_p: Tensor) -> Tensor:
    """Entropy in nats, [position], float64."""
    return -torch.where(p > 0, p * log_p, 0.0).sum(-1, dtype=torch.float64)


def top_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Share of ids that two top-k lists [position, k] have in common, whatever their order, [position]."""
    return (a.unsqueeze(-1) == b.unsqueeze(-2)).any(-1).double().mean(-1)


def rank(scores: Tensor, ids: Tensor) -> Tensor:
    """Rank of token `ids` [position] in each row of `scores` [position, vocabulary]; the best is 1."""
    return (scores > scores.gather(-1, ids.unsqueeze(-1))).sum(-1) + 1


def share_carrying(values: Tensor, part: float = 0.5) -> float:
    """The smallest share of positions that together carry `part` of the sum of `values`; 0 when the sum is 0."""
    total = float(values.sum())
    if total <= 0:
        return 0.0
    running = values.sort(descending=True).values.cumsum(0)
    needed = int((running < part * total).sum()) + 1
    return min(needed, len(values)) / len(values)
