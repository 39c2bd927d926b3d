"""Attention weights beside their gradients: what attending to a token did for the choice."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.interpretation.attention.scores.patterns import pattern_sites
from intarsia.interpretation.attention.weights import AttentionAttributionConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.attribution.settings import AttributionConfig
from intarsia.interpretation.explained import Explained
from intarsia.progress import track
from intarsia.sites import Apply

TOKENS_PER_BATCH = 2048


def _with_slopes(explained: Explained) -> list[tuple[Tensor, Tensor]]:
    """For each block, the pattern and the choice's gradient there, [query, head, key]."""
    names = pattern_sites(explained)
    value, acts = explained.value_with(names)
    found = [acts[name] for name in names]
    slopes = torch.autograd.grad(value.sum(), found)
    return [(a[0].detach().double().cpu(), g[0].double().cpu()) for a, g in zip(found, slopes, strict=True)]


def attention_x_gradient(explained: Explained, settings: AttributionConfig, seed: int = 0) -> Scored:
    """Sum over layers, heads and queries of weight x gradient."""
    total = torch.stack([(a * g).sum((0, 1)) for a, g in _with_slopes(explained)]).sum(0)
    return Scored(total[explained.features])


def grad_sam(explained: Explained, settings: AttributionConfig, seed: int = 0) -> Scored:
    """Mean over layers, heads and queries of weight x max(gradient, 0)."""
    total = torch.stack([(a * g.clamp(min=0)).mean((0, 1)) for a, g in _with_slopes(explained)]).mean(0)
    return Scored(total[explained.features])


def attention_attribution(explained: Explained, settings: AttentionAttributionConfig, seed: int = 0) -> Scored:
    """Mean over layers of (weight x mean gradient on the way from no attention), summed over heads and queries."""
    along = (torch.arange(settings.steps) + 0.5) / settings.steps
    names = pattern_sites(explained)
    scores = torch.zeros(len(explained.features), dtype=torch.float64)
    for name in track(names, "attention attribution"):
        scores += layer_attribution(explained, name, along).sum((0, 1))[explained.features] / len(names)
    return Scored(scores)


def layer_attribution(explained: Explained, name: str, along: Tensor) -> Tensor:
    """[query, head, key]: one block's pattern times the mean of its gradients with the pattern scaled by `along`."""
    size = max(1, TOKENS_PER_BATCH // len(explained.ids))
    total: Tensor | float = 0.0
    weights = None
    for part in along.split(size):
        factors = part[:, None, None, None]
        scaled = Apply(name, function=lambda a, f=factors: a * f.to(a))
        value, acts = explained.value_with([name], [scaled], count=len(part))
        (slope,) = torch.autograd.grad(value.sum(), acts[name])
        total = total + slope.double().sum(0)
        if weights is None:
            weights = acts[name][0].detach().double() / float(part[0])
    return (weights * total / len(along)).cpu()  # type: ignore[operator]
