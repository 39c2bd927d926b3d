"""`Counts`: what a placement needs to know of a trace, in one pass and a size that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.routing.trace import Trace

Shares = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(eq=False)
class Counts:
    """Counts over tokens, E experts, L routed layers, k choices.

    - steps: lag d -> [L - d, E, E] tokens whose first choice is a in a layer and b d layers on.
    - together: [L, E, E] tokens that use a and b both (symmetric, nothing on the diagonal).
    - load: [L, E] tokens sent to an expert by any choice; first: [L, E] by their first.
    - tokens: how many."""

    experts: int
    k: int
    steps: dict[int, Whole]
    together: Whole
    load: Whole
    first: Whole
    tokens: int = 0
    layers: int = field(default=0)

    @staticmethod
    def empty(layers: int, experts: int, k: int, lags: Iterable[int] = (1,)) -> Counts:
        """Nothing counted yet."""
        steps = {d: np.zeros((layers - d, experts, experts), np.int64) for d in lags if d < layers}
        square, row = (layers, experts, experts), (layers, experts)
        return Counts(
            experts, k, steps, np.zeros(square, np.int64), np.zeros(row, np.int64), np.zeros(row, np.int64), 0, layers
        )

    @staticmethod
    def of(trace: Trace, lags: Iterable[int] = (1,)) -> Counts:
        """Of a trace, piece by piece."""
        counts = Counts.empty(len(trace.facts.layers), trace.facts.experts, trace.facts.k, lags)
        for piece in trace.pieces():
            counts.add(piece)
        return counts

    def add(self, ids: NDArray[Any]) -> None:
        """Count more tokens: [token, layer, choice]."""
        count, layers, k = ids.shape
        whole = ids.astype(np.int64)
        wide = self.experts * self.experts
        for lag, table in self.steps.items():
            pairs = whole[:, :-lag, 0] * self.experts + whole[:, lag:, 0]
            pairs += np.arange(layers - lag) * wide
            table += np.bincount(pairs.ravel(), minlength=(layers - lag) * wide).reshape(table.shape)
        rows = np.arange(layers) * self.experts
        for choice in range(k):
            found = np.bincount((whole[:, :, choice] + rows).ravel(), minlength=layers * self.experts)
            self.load += found.reshape(self.load.shape)
            if choice == 0:
                self.first += found.reshape(self.first.shape)
            for other in range(choice + 1, k):
                pairs = whole[:, :, choice] * self.experts + whole[:, :, other] + np.arange(layers) * wide
                found = np.bincount(pairs.ravel(), minlength=layers * wide).reshape(self.together.shape)
                self.together += found + found.transpose(0, 2, 1)
        self.tokens += count

    def flow(self, lag: int = 1) -> Shares:
        """[L - lag, E, E] share of tokens that go from a to b: each layer's sums to 1."""
        return self.steps[lag] / max(1, self.tokens)

    def mates(self) -> Shares:
        """[L, E, E] share of tokens that use a and b both."""
        return self.together / max(1, self.tokens)

    def shares(self) -> Shares:
        """[L, E] share of all that is sent to an expert; each layer's sum to 1."""
        return self.load / np.maximum(self.load.sum(1, keepdims=True), 1)
