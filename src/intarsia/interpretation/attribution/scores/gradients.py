"""Gradients of the choice's log probability with respect to the embeddings, and the methods made of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from intarsia.interpretation.attribution.gradients import IntegratedGradientsConfig, SmoothGradConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.attribution.scores.baselines import baseline_embeddings
from intarsia.interpretation.attribution.settings import AttributionConfig
from intarsia.interpretation.explained import Explained
from intarsia.progress import track

TOKENS_PER_BATCH = 2048  # a graph keeps every block's activations


def slopes(explained: Explained, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Values [n] and their gradients [n, token, width] at embeddings [n, token, width], a few rows at a time."""
    values, gradients = [], []
    rows = max(1, TOKENS_PER_BATCH // embeddings.shape[1])
    for part in track(embeddings.split(rows), "following gradients"):
        at = part.detach().requires_grad_()
        value = explained.value_at(at)
        (gradient,) = torch.autograd.grad(value.sum(), at)
        values.append(value.detach())
        gradients.append(gradient)
    return torch.cat(values), torch.cat(gradients)


def _own(explained: Explained, per_token: Tensor) -> Tensor:
    return per_token[explained.features].double().cpu()


def gradient(explained: Explained, settings: AttributionConfig, seed: int = 0) -> Scored:
    """|d log p / d embedding| of each token."""
    _, slope = slopes(explained, explained.embeddings()[None])
    return Scored(_own(explained, slope[0].double().norm(dim=-1)))


def gradient_x_input(explained: Explained, settings: AttributionConfig, seed: int = 0) -> Scored:
    """Each token's gradient times its embedding, summed over the width."""
    embeddings = explained.embeddings()
    _, slope = slopes(explained, embeddings[None])
    return Scored(_own(explained, (slope[0].double() * embeddings.double()).sum(-1)))


def integrated_gradients(explained: Explained, settings: IntegratedGradientsConfig, seed: int = 0) -> Scored:
    """(x - x0) times the mean gradient on the straight line from x0 to x, by Gauss-Legendre quadrature."""
    whole = explained.embeddings()
    start = baseline_embeddings(explained, settings.baseline, whole)
    nodes, weights = np.polynomial.legendre.leggauss(settings.steps)
    along = torch.tensor((nodes + 1) / 2, dtype=whole.dtype, device=whole.device)[:, None, None]
    _, slope = slopes(explained, start + along * (whole - start))
    mean = torch.einsum("k,ktd->td", torch.tensor(weights / 2, device=whole.device), slope.double())
    scores = ((whole - start).double() * mean).sum(-1)
    with torch.no_grad():
        ends = explained.value_at(torch.stack([start, whole]))
    return Scored(_own(explained, scores), total=float(ends[1] - ends[0]))


def smooth_grad(explained: Explained, settings: SmoothGradConfig, seed: int = 0) -> Scored:
    """Gradient, meaned over noisy copies of the embeddings, times the embedding (or its norm)."""
    embeddings = explained.embeddings()
    own = embeddings[explained.features]
    scale = settings.noise * float(own.max() - own.min())
    noise = torch.zeros(settings.samples, *embeddings.shape)
    drawn = torch.randn(settings.samples, *own.shape, generator=torch.Generator().manual_seed(seed))
    noise[:, explained.features] = scale * drawn
    _, slope = slopes(explained, embeddings + noise.to(embeddings))
    mean = slope.double().mean(0)
    if settings.times_input:
        return Scored(_own(explained, (mean * embeddings.double()).sum(-1)))
    return Scored(_own(explained, mean.norm(dim=-1)))
