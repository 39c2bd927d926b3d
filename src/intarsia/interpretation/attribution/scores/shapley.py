"""Shapley values by random orders, and Owen values over the text's own hierarchy of sentences, words and tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.interpretation.attribution.perturbation import PartitionShapConfig, ShapleySamplingConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.attribution.units import masks, pieces, spread
from intarsia.interpretation.explained import Explained


def shapley_sampling(explained: Explained, settings: ShapleySamplingConfig, seed: int = 0) -> Scored:
    """Mean gain of each piece when it joins those before it, over random orders and the same orders backwards."""
    groups = pieces(explained, settings.unit)
    count = len(groups)
    generator = torch.Generator().manual_seed(seed)
    orders: list[Tensor] = []
    while len(orders) < settings.orders:
        order = torch.randperm(count, generator=generator)
        orders += [order, order.flip(0)]
    orders = orders[: settings.orders]
    present = torch.zeros(len(orders), count + 1, count, dtype=torch.bool)
    for row, order in zip(present, orders, strict=True):
        for place, piece in enumerate(order):
            row[place + 1 :, piece] = True
    values = explained.value(masks(explained, groups, present.flatten(0, 1))).view(len(orders), count + 1)
    gains = values.diff(dim=1)
    scores = torch.zeros(count, dtype=torch.float64)
    for gain, order in zip(gains, orders, strict=True):
        scores[order] += gain / len(orders)
    return Scored(spread(explained, groups, scores), total=float(values[0, -1] - values[0, 0]))


@dataclass
class _Node:
    """Pieces `first` to `last` (exclusive), the contexts they may join [n, piece] bool, their weights, their value."""

    first: int
    last: int
    contexts: Tensor
    weights: Tensor
    value: float


def partition_shap(explained: Explained, settings: PartitionShapConfig, seed: int = 0) -> Scored:
    """Owen values: a node's value is shared by its two halves, each of which joins with and without the other.

    Nodes of the largest absolute value are opened first, until `evaluations` are spent; what is left closed is shared
    evenly. The sum is exact at every stage."""
    groups = pieces(explained, settings.unit)
    count = len(groups)
    ranks = _boundaries(explained, groups)
    nothing = torch.zeros(1, count, dtype=torch.bool)
    empty, full = explained.value(masks(explained, groups, torch.cat([nothing, ~nothing])))
    total = float(full - empty)
    closed = [_Node(0, count, nothing, torch.ones(1, dtype=torch.float64), total)]
    left = settings.evaluations
    scores = torch.zeros(count, dtype=torch.float64)
    while closed:
        closed.sort(key=lambda node: -abs(node.value))
        chosen: list[_Node] = []
        rest: list[_Node] = []
        for node in closed:
            cost = 2 * len(node.contexts)
            if node.last - node.first > 1 and cost <= left:
                chosen.append(node)
                left -= cost
            else:
                scores[node.first : node.last] += node.value / (node.last - node.first)
        cuts = [_cut(node, ranks) for node in chosen]
        for node, cut, known in zip(chosen, cuts, _values(explained, groups, chosen, cuts), strict=True):
            rest += _halves(node, cut, known)
        closed = rest
    return Scored(spread(explained, groups, scores), total=total)


def _joined(contexts: Tensor, first: int, last: int) -> Tensor:
    joined = contexts.clone()
    joined[:, first:last] = True
    return joined


def _values(explained: Explained, groups: list[list[int]], nodes: list[_Node], cuts: list[int]) -> list[list[Tensor]]:
    """For each node, the values of its contexts alone, with its left half, its right half, and both."""
    if not nodes:
        return []
    parts = [
        [
            node.contexts,
            _joined(node.contexts, node.first, cut),
            _joined(node.contexts, cut, node.last),
            _joined(node.contexts, node.first, node.last),
        ]
        for node, cut in zip(nodes, cuts, strict=True)
    ]
    flat = explained.value(masks(explained, groups, torch.cat([p for part in parts for p in part])))
    sizes = [len(p) for part in parts for p in part]
    split = list(flat.split(sizes))
    return [split[i : i + 4] for i in range(0, len(split), 4)]


def _halves(node: _Node, cut: int, known: list[Tensor]) -> list[_Node]:
    alone, left, right, both = known
    weights = torch.cat([node.weights, node.weights]) / 2
    out = []
    for first, last, gains, other in (
        (node.first, cut, (left - alone, both - right), (cut, node.last)),
        (cut, node.last, (right - alone, both - left), (node.first, cut)),
    ):
        contexts = torch.cat([node.contexts, _joined(node.contexts, *other)])
        out.append(_Node(first, last, contexts, weights, float((weights * torch.cat(gains)).sum())))
    return out


def _boundaries(explained: Explained, groups: list[list[int]]) -> list[int]:
    """How strong the border before each piece is: 2 of a sentence, 1 of a word, 0 inside a word."""
    starts = {unit: {piece[0] for piece in pieces(explained, unit)} for unit in ("word", "sentence")}  # type: ignore[arg-type]
    return [(g[0] in starts["word"]) + (g[0] in starts["sentence"]) for g in groups]


def _cut(node: _Node, ranks: list[int]) -> int:
    """Where a node is halved: at its strongest inner border, the one nearest to the middle."""
    middle = (node.first + node.last) / 2
    return min(range(node.first + 1, node.last), key=lambda i: (-ranks[i], abs(i - middle), i))
