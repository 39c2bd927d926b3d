"""How often elements occur in training facts."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.graph.growing import GrowingGraph, directed


def occurrences(graph: GrowingGraph, upto: int, since: int = 0) -> tuple[Tensor, Tensor]:
    """Training facts of snapshots `since` to `upto` in which each entity occurs, and of each row of relations."""
    snapshot = graph.snapshots[upto]
    both = torch.from_numpy(directed(graph.facts(upto, ("train",), since)))
    return (
        torch.bincount(both[:, 0], minlength=snapshot.entities),
        torch.bincount(both[:, 1], minlength=snapshot.rows),
    )
