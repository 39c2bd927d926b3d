"""Labels of the nearest training turns, in the space of sentence embeddings: what is learned by being kept.

Source: Khandelwal et al. 2020, "Generalization through Memorization", eq. 2-3, over labels in place of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOOR = 0.01  # share of the probability that labels without a neighbour divide


@dataclass(frozen=True)
class Neighbours:
    """p(y) ~ sum over the nearest with label y of exp(cosine / temperature).

    - vectors: [record, width] of length one; labels: [record].
    - groups: [record] numbers of dialogues, for queries that are among those kept."""

    vectors: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    count: int
    nearest: int = 20
    temperature: float = 0.1

    def scores(self, vectors: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
        """[record, label] log probabilities.

        - groups: [record] dialogues of the queries, where they are among those kept: their own are left out."""
        out = np.zeros((len(vectors), self.count))
        k = min(self.nearest, len(self.labels))
        for start in range(0, len(vectors), 512):
            some = slice(start, start + 512)
            near = vectors[some] @ self.vectors.T
            if groups is not None and self.groups is not None:
                near = np.where(groups[some, None] == self.groups[None], -np.inf, near)
            best = np.argpartition(-near, k - 1, axis=1)[:, :k]
            worth = np.exp(np.take_along_axis(near, best, 1) / self.temperature - 1 / self.temperature)
            rows = np.broadcast_to(np.arange(len(best))[:, None], best.shape)
            np.add.at(out[some], (rows, self.labels[best]), worth)
        total = out.sum(1, keepdims=True)
        share = np.divide(out, total, out=np.full_like(out, 1 / self.count), where=total > 0)
        return np.log((1 - FLOOR) * share + FLOOR / self.count)
