"""The masked KG autoencoder: an entity or relation as its facts say it should be, and the pull towards that."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from intarsia.knowledge.learning.counts import occurrences
from intarsia.knowledge.learning.parts import Growing, Part
from intarsia.knowledge.learning.transfer import means
from intarsia.knowledge.scorers import TransE


class Autoencoder(Part):
    """beta * (mean over entities of ||xhat - x||^2 + mean over relations of ||qhat - q||^2), raw vectors.

    xhat of an entity is the mean of `reach(h, r)` over the facts (h, r, entity) of the snapshot in both directions,
    qhat of a relation that of `relate(h, t)`: masked, since an element's own vector has no part in it. For an old
    element the past stands in by the vector it had, with the weight of its facts so far (Cui et al. 2023, section on
    the masked autoencoder). Elements without any fact are left out of the sums.

    - relu, loops: as the released code computes it: each entity's own vector counts as one more fact, the sum goes
      through a relu, the past has no part, and a relation without a fact is reconstructed as nothing.

    For translations this is one constant sparse operator, applied once forth and once back."""

    def __init__(self, beta: float, relu: bool = False, loops: bool = False):
        super().__init__()
        self.beta, self.relu, self.loops = beta, relu, loops
        self.forth: Tensor | None = None

    def begin(self, growing: Growing) -> None:
        facts = growing.facts
        n_entities = torch.bincount(facts[:, 2], minlength=growing.entities).to(growing.tables.entities)
        n_relations = torch.bincount(facts[:, 1], minlength=growing.relations).to(growing.tables.entities)
        past_entities, past_relations = torch.zeros_like(n_entities), torch.zeros_like(n_relations)
        if self.loops:
            n_entities = n_entities + 1
        elif growing.index:
            counted = occurrences(growing.graph, growing.index - 1)
            past_entities[: growing.old_entities] = counted[0].to(n_entities)
            past_relations[: growing.old_relations] = counted[1].to(n_entities)
        whole = [n_entities + past_entities, n_relations + past_relations]
        self.known = [((total > 0) | self.loops)[:, None].to(n_entities) for total in whole]
        self.scale = [1 / total.clamp_min(1)[:, None] for total in whole]
        self.past = [
            _padded(old * past[: len(old), None], len(past)) * scale
            for old, past, scale in (
                (growing.before.entities, past_entities, self.scale[0]),
                (growing.before.relations, past_relations, self.scale[1]),
            )
        ]
        self.forth = None
        if isinstance(growing.scorer, TransE):
            self.forth = _operator(growing, self.scale, self.loops)
            self.back = self.forth.t().to_sparse_csr()

    def accumulate(self, growing: Growing, batch: Any) -> float:
        tables = growing.tables
        if self.forth is None:
            return self._any_scorer(growing)
        e = growing.entities
        both = torch.cat([tables.entities.detach(), tables.relations.detach()])
        made = self.forth @ both
        made[:e] += self.past[0]
        made[e:] += self.past[1]
        if self.relu:
            alive = made[:e] > 0
            made[:e] *= alive
        made -= both
        made[:e] *= self.known[0]
        made[e:] *= self.known[1]
        loss = float(made[:e].square().sum() / e + made[e:].square().sum() / growing.relations)
        made[:e] *= 2 * self.beta / e
        made[e:] *= 2 * self.beta / growing.relations
        tables.to_entities.sub_(made[:e])
        tables.to_relations.sub_(made[e:])
        if self.relu:
            made[:e] *= alive
        pull = self.back @ made
        tables.to_entities.add_(pull[:e])
        tables.to_relations.add_(pull[e:])
        return self.beta * loss

    def _any_scorer(self, growing: Growing) -> float:
        tables, scorer = growing.tables, growing.scorer
        x, q = tables.entities, tables.relations
        h, r, t = growing.facts.unbind(1)
        terms = []
        for table, owner, values, known, scale, past in (
            (x, t, scorer.reach(x[h], q[r]), self.known[0], self.scale[0], self.past[0]),
            (q, r, scorer.relate(x[h], x[t]), self.known[1], self.scale[1], self.past[1]),
        ):
            mean, _ = means(owner, values, len(table))
            number = torch.bincount(owner, minlength=len(table)).to(mean)[:, None]
            if self.loops and table is x:
                mean, number = (mean * number + x) / (number + 1), number + 1
            made = mean * number * scale + past
            if self.relu and table is x:
                made = made.relu()
            terms.append(((made - table) * known).square().sum() / len(table))
        loss = self.beta * (terms[0] + terms[1])
        loss.backward()
        return float(loss.detach())


def _operator(growing: Growing, scale: list[Tensor], loops: bool) -> Tensor:
    """The sparse matrix over entities and relations, stacked, that gives the sums over facts, divided: CSR."""
    e, size = growing.entities, growing.entities + growing.relations
    h, r, t = growing.facts.unbind(1)
    by_entity, by_relation = scale[0][t, 0], scale[1][r, 0]
    rows = [t, t, r + e, r + e]
    columns = [h, r + e, t, h]
    values = [by_entity, by_entity, by_relation, -by_relation]
    if loops:
        own = torch.arange(e, device=h.device)
        rows, columns, values = [*rows, own], [*columns, own], [*values, scale[0][:, 0]]
    places = torch.stack([torch.cat(rows), torch.cat(columns)])
    whole = torch.sparse_coo_tensor(places, torch.cat(values), (size, size), check_invariants=False).coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return whole.to_sparse_csr()


def _padded(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(count - len(rows), rows.shape[1])])
