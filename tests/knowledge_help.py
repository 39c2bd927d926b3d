"""Small random growing graphs, and a snapshot of one while it is learned."""

import numpy as np
import torch

from intarsia.data import Fact, FactSnapshot
from intarsia.knowledge.graph.growing import GrowingGraph, directed
from intarsia.knowledge.learning.parts import Growing
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.tables import Tables
from intarsia.knowledge.scorers import scorer_called


def small_graph(seed=0, snapshots=3, entities=10, relations=2, train=20, held=4) -> GrowingGraph:
    """Every snapshot brings so many entities, relations, training facts, and facts for each of valid and test.

    The last entity of a snapshot occurs in its test alone."""
    rng = np.random.default_rng(seed)
    parts, seen = [], set()
    for i in range(snapshots):
        known, new = (i + 1) * entities - 1, i * entities
        facts = []
        while len(facts) < train + 2 * held:
            at, left = len(facts), train + 2 * held - len(facts)
            ends = rng.integers(known, size=2)
            if at < entities - 1:
                ends[rng.integers(2)] = new + at
            relation = rng.integers((i + 1) * relations) if at >= relations else i * relations + at
            fact = (int(ends[0]), int(relation), int(ends[1]) if left > 1 else known)
            if fact not in seen and fact[0] != fact[2]:
                seen.add(fact)
                facts.append(Fact(f"e{fact[0]}", f"r{fact[1]}", f"e{fact[2]}"))
        parts.append(FactSnapshot(str(i), facts[:train], facts[train : train + held], facts[train + held :]))
    return GrowingGraph.of(parts)


def growing_for(graph, index, settings=None, dtype=torch.float64, seed=0, moved=0.0) -> Growing:
    """A snapshot as its learning begins, with random tables.

    - moved: how far old rows have gone since then, as the standard deviation of noise on them."""
    settings = settings or Settings(width=6)
    scorer, snapshot = scorer_called(settings.scorer), graph.snapshots[index]
    random = torch.Generator().manual_seed(seed)
    tables = Tables.start(
        scorer, snapshot.entities, snapshot.rows, settings.width, random, torch.device("cpu"), dtype=dtype
    )
    old_entities, old_relations = graph.before(index)
    before = tables.copy().first(old_entities, old_relations)
    for table, old in ((tables.entities, old_entities), (tables.relations, old_relations)):
        noise = torch.randn(old, settings.width, generator=random, dtype=dtype)
        table.detach()[:old] += moved * noise
    return Growing(
        graph=graph, index=index, scorer=scorer, settings=settings, tables=tables, before=before,
        old_entities=old_entities, old_relations=old_relations,
        facts=torch.from_numpy(directed(graph.facts(index, ("train",), index))), random=random,
    )  # fmt: skip


def formula(name, h, r, t):
    """The score of rows as the scorer's paper has it; differentiable."""
    if name == "transe":
        h, r, t = (row / row.square().sum(-1, keepdim=True).sqrt() for row in (h, r, t))
        return -(h + r - t).abs().sum(-1)
    if name == "distmult":
        return (h * r * t).sum(-1)
    head, tail = (torch.complex(*row.chunk(2, -1)) for row in (h, t))
    if name == "complex":
        return (head * torch.complex(*r.chunk(2, -1)) * tail.conj()).real.sum(-1)
    return -(head * torch.exp(1j * r.chunk(2, -1)[0]) - tail).abs().sum(-1)


def added(growing, work) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The value that `work` gives, and what it adds to the gradients of entities and relations."""
    tables = growing.tables
    tables.to_entities.fill_(1)
    tables.to_relations.fill_(1)
    value = work()
    found = value, tables.to_entities - 1, tables.to_relations - 1
    tables.clear()
    return found


def differentiated(growing, loss) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The value of `loss(entities, relations)`, and its gradients by autograd."""
    x, q = (t.detach().clone().requires_grad_() for t in (growing.tables.entities, growing.tables.relations))
    value = loss(x, q)
    gradients = torch.autograd.grad(value, (x, q), allow_unused=True)
    x_pull, q_pull = (torch.zeros_like(t) if g is None else g for t, g in zip((x, q), gradients, strict=True))
    return float(value.detach()), x_pull, q_pull
