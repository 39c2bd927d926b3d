"""FastKGE: new entities as low-rank additions, a layer for each distance from what is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from intarsia.knowledge.learning.adam import adam
from intarsia.knowledge.learning.centrality import centralities, distances
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.settings import Settings


class LowRank(Part):
    """New rows are base + A B, of which A and B are learned; all old rows are frozen.

    New entities are sorted by their distance from the known ones, the more central first, and cut into layers of equal
    size; a layer's rank is in proportion to its share of the centrality, and at least nine tenths of the usual one.
    New relations are one layer of a rank of their own. B starts at zero, as in LoRA (Liu et al. 2024, IJCAI)."""

    def __init__(self, settings: Settings):
        super().__init__()
        option = settings.option
        self.layers, self.rate = int(option("layers")), settings.learning_rate or 1e-4
        self.ranks = int(option("rank")), int(option("relation_rank"))
        self.rows: list[tuple[str, Tensor]] = []

    def begin(self, growing: Growing) -> None:
        self.rows = []
        if not growing.index:
            return
        self.state.clear()
        for part, ranked in self._layers(growing):
            self._open(growing, growing.tables.entities, f"entities.{len(self.rows)}", part, ranked)
        new = torch.arange(growing.old_relations, growing.relations)
        if len(new):
            self._open(growing, growing.tables.relations, "relations", new, self.ranks[1])

    def _layers(self, growing: Growing) -> list[tuple[Tensor, int]]:
        facts = growing.graph.snapshots[growing.index].train
        degree, between = centralities(facts, growing.entities)
        far = distances(facts, growing.entities, growing.old_entities)
        new = np.arange(growing.old_entities, growing.entities)
        central = degree + between
        parts = np.array_split(new[np.lexsort([-central[new], far[new]])], self.layers)
        parts = [part for part in parts if len(part)]
        shares = np.array([central[part].sum() for part in parts])
        usual = shares.mean() if len(shares) and shares.mean() else 1.0
        ranks = [max(int(0.9 * self.ranks[0]), int(self.ranks[0] * share / usual), 1) for share in shares]
        return [(torch.from_numpy(part), rank) for part, rank in zip(parts, ranks, strict=True)]

    def _open(self, growing: Growing, table: Tensor, name: str, rows: Tensor, rank: int) -> None:
        rows = rows.to(growing.device)
        width = table.shape[1]
        self.rows.append((name, rows))
        a = torch.randn(len(rows), rank, generator=growing.random) / rank**0.5
        self.state[f"{name}.a"] = a.to(table)
        self.state[f"{name}.b"] = table.new_zeros(rank, width)
        self.state[f"{name}.base"] = table.detach()[rows].clone()

    def adjust(self, growing: Growing) -> None:
        if not growing.index:
            return
        gradients = {}
        for name, rows in self.rows:
            grad = _table(growing, name).grad
            assert grad is not None
            a, b = self.state[f"{name}.a"], self.state[f"{name}.b"]
            gradients |= {f"{name}.a": grad[rows] @ b.T, f"{name}.b": a.T @ grad[rows]}
        adam(self.state, gradients, self.rate)
        growing.tables.clear()  # the tables themselves are no parameters here

    def stepped(self, growing: Growing) -> None:
        for name, rows in self.rows:
            made = self.state[f"{name}.base"] + self.state[f"{name}.a"] @ self.state[f"{name}.b"]
            with torch.no_grad():
                _table(growing, name)[rows] = made

    def end(self, growing: Growing) -> None:
        self.state.clear()


def _table(growing: Growing, name: str) -> Tensor:
    return growing.tables.entities if name.startswith("entities") else growing.tables.relations


FASTKGE = Method(
    name="fastkge",
    summary="new rows are low-rank additions in layers, old rows are frozen",
    source="Liu et al. 2024 (FastKGE)",
    family="architecture",
    parts=lambda settings: [LowRank(settings)],
    options={
        "layers": Option(10, "layers of new entities"),
        "rank": Option(100, "usual rank of a layer of entities"),
        "relation_rank": Option(10, "rank of new relations"),
    },
)
