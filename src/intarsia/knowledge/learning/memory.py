"""A memory of a fixed number of facts, in which every snapshot keeps its share."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.learning.parts import Growing


def remembered(growing: Growing, memory: Tensor | None, most: int) -> Tensor:
    """The memory after this snapshot: [fact, 3], directed facts, a uniform sample of all training facts so far.

    Of the facts that are there as many stay as is their share; the others are drawn from the snapshot's own."""
    new = torch.from_numpy(growing.new_facts())
    had = 2 * len(growing.graph.facts(growing.index - 1, ("train",))) if growing.index else 0
    if memory is None or not had:
        memory = new[:0]
    most *= 2  # a directed fact is half of one
    keep = min(len(memory), round(most * had / max(1, had + len(new))))
    kept = memory[growing.shuffled(len(memory))[:keep]]
    return torch.cat([kept, new[growing.shuffled(len(new))[: most - keep]]])
