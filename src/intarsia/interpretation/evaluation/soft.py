"""Soft comprehensiveness and sufficiency: no token is taken away; each keeps a share of its embedding.

Removing whole tokens makes texts that no model was trained on, and then one cannot tell a wrong explanation from a
confused model. Here every token stays and each dimension of its embedding is kept with a probability that its score
sets.

Source: Zhao & Aletras 2023, "Incorporating attribution importance for improving faithfulness metrics", section 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.evaluation.removal import probability

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained


def shares(scores: Tensor) -> Tensor:
    """Scores scaled to 0..1 over the text: (s - lowest) / (highest - lowest); all 1/2 when they are equal."""
    s = scores.double()
    span = s.max() - s.min()
    return (s - s.min()) / span if span > 0 else torch.full_like(s, 0.5)


@torch.no_grad()
def soft(explained: Explained, scores: Tensor, draws: int = 8, seed: int = 0) -> tuple[float, float]:
    """(soft comprehensiveness, soft sufficiency): f(x) - mean f(x') over `draws` texts x' in which each dimension of
    token i's embedding is kept with probability 1 - share_i, and with probability share_i. High and low are good."""
    share = shares(scores)
    base = explained.embeddings().detach()
    features = torch.tensor(explained.features, device=base.device)
    whole = float(probability(explained))
    out = []
    for keep in (1 - share, share):
        # The same random numbers for both, for all methods and for the random floor: less noise in their differences.
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(draws, len(features), base.shape[-1], generator=generator, dtype=torch.float64)
        states = base.expand(draws, -1, -1).clone()
        states[:, features] *= (drawn < keep[:, None]).to(base)
        out.append(whole - float(explained.value_at(states).exp().mean()))
    return out[0], out[1]
