"""Neighbourhoods: for each entity some of the facts that lead to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Neighbours:
    """- heads, relations: [edge] what leads to an entity; starts: [entity + 1] where the edges of each begin."""

    heads: Tensor
    relations: Tensor
    starts: Tensor

    @staticmethod
    def of(facts: Tensor, entities: int, most: int, random: Generator) -> Neighbours:
        """At most `most` facts to each entity, drawn at random from directed facts [fact, 3]."""
        order = torch.randperm(len(facts), generator=random).to(facts.device)
        facts = facts[order]
        facts = facts[facts[:, 2].argsort(stable=True)]
        counts = torch.bincount(facts[:, 2], minlength=entities)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        place = torch.arange(len(facts), device=facts.device) - starts[facts[:, 2]]
        facts = facts[place < most]
        counts = counts.clamp_max(most)
        return Neighbours(facts[:, 0], facts[:, 1], torch.cat([counts.new_zeros(1), counts.cumsum(0)]))

    @property
    def owners(self) -> Tensor:
        """The entity each edge leads to."""
        counts = self.starts.diff()
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)

    def to(self, entities: Tensor) -> tuple[Tensor, Tensor]:
        """The edges of some entities: (places of edges, which of the entities given each belongs to)."""
        counts = self.starts[entities + 1] - self.starts[entities]
        owner = torch.repeat_interleave(torch.arange(len(entities), device=entities.device), counts)
        inside = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
        return self.starts[entities][owner] + inside, owner

    def joined(self, later: Neighbours, known: int) -> Neighbours:
        """The edges to the first `known` entities from here, those to all others from `later`."""
        end, begin = int(self.starts[known]), int(later.starts[known])
        starts = torch.cat([self.starts[: known + 1], later.starts[known + 1 :] - begin + end])
        heads = torch.cat([self.heads[:end], later.heads[begin:]])
        return Neighbours(heads, torch.cat([self.relations[:end], later.relations[begin:]]), starts)


def message(vectors: Tensor, heads: Tensor, relations: Tensor, normals: Tensor) -> Tensor:
    """What each edge says: x_h - (w_r . x_h) w_r, the head's vector with its part along the relation's taken out."""
    x, w = vectors[heads], normals[relations]
    return x - (x * w).sum(1, keepdim=True) * w
