"""Scores against what tokens measurably do: single tokens, sets of tokens, and all of them together.

Effects are differences of the log probability of the explained choice, which is what attribution methods attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.evaluation.correlation import kendall, pearson, spearman

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained


NOTHING = 0.05


def effects(explained: Explained) -> Tensor:
    """[feature] float64: log f(x) - log f(x without token i), in nats: the leave-one-out effect."""
    return explained.value() - explained.value(~torch.eye(len(explained.features), dtype=torch.bool))


def tau_loo(scores: Tensor, single: Tensor) -> float:
    """Kendall's tau-b of scores and leave-one-out effects; high is good. Source: Jain & Wallace 2019, section 4.1."""
    return kendall(scores, single)


def monotonicity(scores: Tensor, single: Tensor) -> float:
    """Spearman's rho of scores and leave-one-out effects; high is good. Source: Nguyen & Martinez 2020, section 3.2."""
    return spearman(scores, single)


def violation_rate(scores: Tensor, single: Tensor) -> float:
    """Share of tokens whose score has another sign than their effect; low is good.

    Fair only to methods that give signs: an attention weight is never negative. Source: Liu et al. 2022
    ("Rethinking attention-model explainability through faithfulness violation test"), section 3."""
    return float((torch.sign(scores.double()) != torch.sign(single.double())).double().mean())


def completeness_error(explained: Explained, scores: Tensor) -> float:
    """|sum of scores - (log f(x) - log f(x0))| / |log f(x) - log f(x0)|, x0 being the text with all its tokens taken
    away; 0 when the scores account for the whole difference. NaN where the difference is under `NOTHING` nats: there
    is nothing to account for, and the ratio would be huge. Source: Sundararajan et al. 2017, section 3.

    It is a promise of some methods only (integrated gradients, Shapley values), and for their own baseline x0."""
    none = torch.zeros(1, len(explained.features), dtype=torch.bool)
    gap = float(explained.value() - explained.value(none))
    return abs(float(scores.double().sum()) - gap) / abs(gap) if abs(gap) >= NOTHING else float("nan")


def sensitivity_n(
    explained: Explained, scores: Tensor, counts: Sequence[int], draws: int = 20, seed: int = 0
) -> dict[int, float]:
    """For each n: Pearson's r over random sets of n tokens between the sum of their scores and the effect of taking
    them away together; 1 when the scores explain sets as well as single tokens.

    Source: Ancona et al. 2018, section 4.1."""
    generator = torch.Generator().manual_seed(seed)
    whole = explained.value()
    out = {}
    for n in counts:
        places = torch.stack([torch.randperm(len(scores), generator=generator)[:n] for _ in range(draws)])
        chosen = torch.zeros(draws, len(scores), dtype=torch.bool).scatter_(1, places, True)
        sums = (chosen * scores.double()).sum(1)
        out[n] = pearson(sums, whole - explained.value(~chosen))
    return out
