"""How far two sets of activations are apart: relative L2 distance, cosine, and linear CKA."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_l2(before: Tensor, after: Tensor) -> Tensor:
    """||after - before|| / ||before|| of each token's vector, [token], float64. Both are [token, width]."""
    before, after = before.double(), after.double()
    gap, size = (after - before).norm(dim=-1), before.norm(dim=-1)
    # A vector that is zero in both is unchanged; from zero to something counts as wholly changed, 1.
    return torch.where(gap == 0, 0.0, gap / torch.where(size == 0, gap, size))


def cosine(before: Tensor, after: Tensor) -> Tensor:
    """Cosine of each token's two vectors, [token], float64; exactly 1 where they are equal."""
    before, after = before.double(), after.double()
    value = (before * after).sum(-1) / (before.norm(dim=-1) * after.norm(dim=-1)).clamp_min(1e-300)
    return torch.where((before == after).all(-1), 1.0, value.clamp(-1, 1))


def unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """Unbiased Hilbert-Schmidt independence criterion of stacks of Gram matrices: [a, n, n], [b, n, n] -> [a, b].

    Song et al. 2012, equation 5 (HSIC_1 in Nguyen et al. 2021, section 3). The diagonals must be zero; n > 3."""
    n = k.shape[-1]
    row_k, row_m = k.sum(-1), m.sum(-1)
    trace = k.flatten(1) @ m.flatten(1).T
    totals = torch.outer(row_k.sum(-1), row_m.sum(-1)) / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * (row_k @ row_m.T)
    return (trace + totals - cross) / (n * (n - 3))


def linear_cka(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Linear centred kernel alignment of every layer with every layer: [a, n, d], [b, n, e] -> [a, b], float64.

    Kornblith et al. 2019 with the unbiased HSIC of Nguyen et al. 2021: the plain estimate calls two unrelated sets of
    vectors similar as soon as the width comes near the number of tokens n; this one does not depend on n. 1: the same
    up to rotation and scale; about 0 (it may fall slightly below): unrelated. Layers whose vectors are all alike have
    no direction to compare and give nan. `y` None compares x with itself. Needs n > 3."""
    grams_x = _grams(x)
    grams_y = grams_x if y is None else _grams(y)
    own_x = torch.stack([unbiased_hsic(g[None], g[None])[0, 0] for g in grams_x])
    own_y = own_x if y is None else torch.stack([unbiased_hsic(g[None], g[None])[0, 0] for g in grams_y])
    scale = torch.sqrt(own_x.clamp_min(0)[:, None] * own_y.clamp_min(0)[None])
    value = unbiased_hsic(grams_x, grams_y) / scale
    # Rounded so that equal activations give 1 and not 0.9999999999999999.
    return torch.where(scale > 0, value, torch.nan).clamp(max=1).round(decimals=10)


def _grams(x: Tensor) -> Tensor:
    """Gram matrices with empty diagonals, [layer, n, n], float64, scaled to mean square 1 (CKA ignores scale)."""
    grams = []
    for layer in x:
        layer = layer.double()
        # Centring changes nothing in exact arithmetic; it keeps a few huge, constant dimensions from eating the digits.
        layer = layer - layer.mean(0)
        layer = layer / layer.square().mean().sqrt().clamp_min(1e-300)
        grams.append((layer @ layer.T).fill_diagonal_(0))
    return torch.stack(grams)
