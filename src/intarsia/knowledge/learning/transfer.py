"""Embedding transfer: what a new entity or relation starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.learning.parts import Growing

ROUNDS = 2


def transfer(growing: Growing, rounds: int = ROUNDS) -> None:
    """Set the rows of new entities and relations that occur in the new facts to the mean of what these say.

    An entity is the mean of `reach` over its facts, a relation of `relate` (Cui et al. 2023, section on embedding
    transfer). The first round takes only facts whose other two are known, so that random rows tell nothing; further
    rounds take all facts of what has a row by then. Rows of which no fact says anything stay random."""
    scorer, tables, facts = growing.scorer, growing.tables, growing.facts
    x, q = tables.entities.detach(), tables.relations.detach()
    had_entities = torch.arange(len(x), device=x.device) < growing.old_entities
    had_relations = torch.arange(len(q), device=q.device) < growing.old_relations
    known_entities, known_relations = had_entities.clone(), had_relations.clone()
    h, r, t = facts.unbind(1)
    for _ in range(rounds):
        use = known_entities[h] & known_entities[t] & ~had_relations[r]
        rows, found = means(r[use], scorer.relate(x[h[use]], x[t[use]]), len(q))
        q[found] = scorer.settle_relations(rows[found], q[: growing.old_relations])
        known_relations |= found
        use = known_entities[h] & known_relations[r] & ~had_entities[t]
        rows, found = means(t[use], scorer.reach(x[h[use]], q[r[use]]), len(x))
        x[found] = scorer.settle_entities(rows[found], x[: growing.old_entities])
        known_entities |= found


def means(owner: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean of the values of each owner: ([count, width], [count] whether it has any)."""
    total = values.new_zeros(count, values.shape[1]).index_add_(0, owner, values)
    number = torch.bincount(owner, minlength=count)
    return total / number.clamp_min(1)[:, None], number > 0
