"""Does an explanation stay where the model stays, and change where the model changes?

Each takes `attribute(explained, seed) -> scores [feature]`, so that any method can be asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.interpretation.evaluation.variants import elsewhere

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained
    from intarsia.models import Model

Attribute = Callable[["Explained", int], "Tensor"]


def max_sensitivity(attribute: Attribute, explained: Explained, noisy: Sequence[Model], seed: int = 0) -> float:
    """max over models d with slightly moved embeddings (`variants.with_noise`) of ||s(x + d) - s(x)|| / ||s(x)||; low
    is good, as long as the model's output moves no more than that. Source: Yeh et al. 2019, section 4."""
    base = attribute(explained, seed).double()
    size = float(base.norm())
    if not size:
        return float("nan")
    moved = [attribute(elsewhere(explained, model), seed).double() for model in noisy]
    return max(float((scores - base).norm()) / size for scores in moved)


def seed_stability(attribute: Attribute, explained: Explained, seeds: Sequence[int]) -> float:
    """Mean Spearman's rho of the scores over pairs of seeds: 1 for methods without chance; high is good."""
    return agreement([attribute(explained, seed) for seed in seeds])


def agreement(scores: Sequence[Tensor]) -> float:
    """Mean Spearman's rho over pairs of score vectors of one text; pairs in which one does not vary are left out
    (NaN when all are), and equal vectors agree wholly even then."""
    pairs = [
        1.0 if (a == b).all() else spearman(a.cpu().numpy(), b.cpu().numpy())
        for a, b in itertools.combinations(scores, 2)
    ]
    known = [value for value in pairs if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def randomisation(
    attribute: Attribute, explained: Explained, randomised: Model, scores: Tensor | None = None, seed: int = 0
) -> tuple[float, float]:
    """Spearman's rho between the explanations of the model and of one whose blocks learnt nothing
    (`variants.with_random_blocks`), of the scores and of their absolute values; an explanation that is about the model
    gives about 0, one that only describes the text stays near 1.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", sections 3 and 4 (cascading randomisation)."""
    base = (attribute(explained, seed) if scores is None else scores).double().cpu().numpy()
    other = attribute(elsewhere(explained, randomised), seed).double().cpu().numpy()
    return spearman(base, other), spearman(np.abs(base), np.abs(other))
