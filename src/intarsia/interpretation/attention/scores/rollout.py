"""Rollout, flow and value-weighted attention: patterns of all layers as one way from the tokens to the choice."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.errors import MissingExtra
from intarsia.interpretation.attention.scores.patterns import patterns, readouts
from intarsia.interpretation.attention.weights import AttentionRolloutConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.explained import Explained
from intarsia.progress import track

UNITS = 1_000_000  # capacities are whole numbers


def attention_rollout(explained: Explained, settings: AttentionRolloutConfig, seed: int = 0) -> Scored:
    """The product of all layers' mixing matrices, at the row where the choice is read."""
    found = patterns(explained)
    mixing = [mixed(_over_heads(block["pattern"], settings.heads), settings.residual) for block in found]
    return _at(explained, rolled(mixing), readouts(explained, found[0]["pattern"]))


def value_weighted_attention(explained: Explained, settings: AttentionRolloutConfig, seed: int = 0) -> Scored:
    """Rollout of |sum over heads of pattern x transformed value| in place of the patterns."""
    found = patterns(explained, "v")
    mixing = []
    for layer, block in enumerate(found):
        vectors = transformed_values(explained, layer, block["v"])
        mixing.append(mixed(moved(block["pattern"], vectors, settings.heads), settings.residual))
    return _at(explained, rolled(mixing), readouts(explained, found[0]["pattern"]))


def attention_flow(explained: Explained, settings: AttentionRolloutConfig, seed: int = 0) -> Scored:
    """The maximum flow from each token at the bottom to where the choice is read at the top."""
    found = patterns(explained)
    mixing = [mixed(_over_heads(block["pattern"], settings.heads), settings.residual) for block in found]
    rows = readouts(explained, found[0]["pattern"])
    scores = torch.zeros(len(explained.features), dtype=torch.float64)
    for i, token in enumerate(track(explained.features, "attention flow")):
        scores[i] = sum(max_flow(mixing, row, token) for row in rows) / len(rows)
    return Scored(scores)


def _over_heads(pattern: Tensor, how: str) -> Tensor:
    return pattern.mean(0) if how == "mean" else pattern.amax(0)


def mixed(weights: Tensor, residual: float) -> Tensor:
    """[query, key] weights, rows summing to one, beside a residual stream of the given share."""
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)
    return (1 - residual) * weights + residual * torch.eye(len(weights), dtype=weights.dtype)


def rolled(mixing: list[Tensor]) -> Tensor:
    """The product of mixing matrices from the first block (right) to the last (left), [query, token]."""
    total = torch.eye(len(mixing[0]), dtype=mixing[0].dtype)
    for matrix in mixing:
        total = matrix @ total
    return total


def max_flow(mixing: list[Tensor], row: int, token: int) -> float:
    """Maximum flow between position `row` above the last block and `token` below the first; matrices [query, key]."""
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_flow
    except ImportError:
        raise MissingExtra("attention flow", "quality") from None
    size, levels = len(mixing[0]), len(mixing)
    start, stop, capacity = [], [], []
    for level, matrix in enumerate(mixing):
        whole = (matrix * UNITS).round().int()
        query, key = whole.nonzero(as_tuple=True)
        start.append(query + (level + 1) * size)
        stop.append(key + level * size)
        capacity.append(whole[query, key])
    edges = (torch.cat(capacity).numpy(), (torch.cat(start).numpy(), torch.cat(stop).numpy()))
    graph = csr_array(edges, shape=((levels + 1) * size,) * 2)
    return int(maximum_flow(graph, levels * size + row, token).flow_value) / UNITS


@torch.no_grad()
def transformed_values(explained: Explained, layer: int, values: Tensor) -> Tensor:
    """[head, token, width]: each head's values [token, key-value head, width of a head] after the output projection,
    without its bias. The projection itself is asked, so that quantized and adapted ones count as they are."""
    sites = explained.model.sites
    tap = sites.tap(f"{sites.main.prefix}layers.{layer}.z")
    values = values.repeat_interleave(tap.heads // values.shape[1], dim=1)
    alone = torch.zeros(tap.heads, *values.shape, dtype=values.dtype, device=values.device)
    for head in range(tap.heads):
        alone[head, :, head] = values[:, head]
    rows = alone.flatten(-2)
    return (tap.module(rows) - tap.module(torch.zeros_like(rows[:1, :1]))).double().cpu()


def moved(pattern: Tensor, vectors: Tensor, heads: str = "mean") -> Tensor:
    """[query, key]: the length of what attention moves from key to query. pattern: [head, query, key].

    All heads' vectors are added before the length is taken; with `heads="max"` it is the head that moves most."""
    if heads == "max":
        return (pattern * vectors.norm(dim=-1)[:, None]).amax(0)
    # |sum_h a_h t_h|^2 = a^T G a, with G the products of the heads' vectors at a key.
    gram = torch.einsum("hjd,gjd->jhg", vectors, vectors)
    return torch.einsum("hij,jhg,gij->ij", pattern, gram, pattern).clamp(min=0).sqrt()


def _at(explained: Explained, total: Tensor, rows: list[int]) -> Scored:
    return Scored(total[rows].mean(0)[explained.features])
