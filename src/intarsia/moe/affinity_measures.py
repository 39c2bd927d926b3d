"""Affinity in figures, each beside what it would be without any.

Of a flow [E, E] (share of tokens that go from expert a to expert b of a later layer; sums to 1). Yao et al. 2024
(ExFlow) call the rows of its conditional form, P(b | a), inter-layer affinity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def conditional(flow: Array) -> Array:
    """[E, E] P(next expert b | expert a); rows of unused experts are zero."""
    return flow / np.maximum(flow.sum(1, keepdims=True), 1e-300) * (flow.sum(1, keepdims=True) > 0)


def mutual_information(flow: Array, tokens: int) -> float:
    """Bits that the expert says about the next one: less the Miller-Madow bias of (r - 1)(c - 1) / (2 N ln 2) for r and
    c used experts, which alone is what independent routing would show. Not below 0."""
    rows, columns = flow.sum(1), flow.sum(0)
    there = flow > 0
    plain = float((flow[there] * np.log2(flow[there] / np.outer(rows, columns)[there])).sum())
    used = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1)
    return max(0.0, plain - used / (2 * max(1, tokens) * math.log(2)))


def entropy(shares: NDArray[Any]) -> float:
    """Bits, of shares or counts."""
    p = np.asarray(shares, float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum())


def top_mass(flow: Array, slots: int) -> float:
    """Share of tokens whose next expert is among the `slots` likeliest after theirs: what would stay if every expert
    could have its own favourites beside it."""
    return float(np.sort(flow, axis=1)[:, -slots:].sum())


def likeness(a: Array, b: Array) -> float:
    """How alike two flows are: 1 less half the sum of differences of P(next | expert), experts weighted by their use in
    both; 1 where they agree, 0 where no token of one does what one of the other does. An expert that only one of them
    uses has nothing in common with the other."""
    weight = (a.sum(1) + b.sum(1)) / 2
    apart = np.abs(conditional(a) - conditional(b)).sum(1) / 2
    apart[(a.sum(1) > 0) != (b.sum(1) > 0)] = 1.0
    return float(1 - (weight * apart).sum() / max(weight.sum(), 1e-300))
