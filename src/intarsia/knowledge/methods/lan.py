"""LAN: an entity is a weighted sum of what its neighbours say; the weights depend on what is asked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from intarsia.knowledge.evaluation.ranking import Ranker
from intarsia.knowledge.graph.growing import Array
from intarsia.knowledge.learning.adam import adam
from intarsia.knowledge.learning.neighbours import Neighbours, message
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.transfer import means
from intarsia.knowledge.objectives.corrupting import Corrupting, Margin, corrupted, scores_of
from intarsia.knowledge.scorers import Scorer
from intarsia.knowledge.scorers.scorer import xavier

CHUNK = 256  # facts whose entities are encoded at a time
ROUNDS = 2
LEARNED = ("vectors", "normals", "asked", "w_asked", "w_said", "u")


class Attention(Part):
    """z(e, q) = m_e + sum over the facts (h, r, e) of (softmax of u . tanh(W [a_q; m]) + P(q, r)) m, m the message of
    the fact; P(q, r) says how often what has r has q as well: |N(q) & N(r)| / max over j of |N(q) & N(j)|, N(r) the
    entities that touch r in the first snapshot (Wang et al. 2019).

    A head is encoded for its question, a tail for the inverse one. Trained on the first snapshot; an entity that comes
    later has the mean of its known neighbours' messages for a vector, and the same attention."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.most, self.rate = int(settings.option("neighbours")), settings.learning_rate or 1e-4
        self.margin = Margin()
        self.near: Neighbours | None = None

    def begin(self, growing: Growing) -> None:
        width, random = growing.settings.width, growing.random
        near = Neighbours.of(growing.facts, growing.entities, self.most, random)
        if not growing.index:
            self.near = near
            like = growing.tables.entities.detach()
            self.state["vectors"] = like.clone()
            for name in ("normals", "asked"):
                self.state[name] = xavier(growing.relations, width, growing.relations, random).to(like)
            for name in ("w_asked", "w_said"):
                self.state[name] = xavier(width, width, width, random).to(like)
            self.state["u"] = xavier(1, width, 1, random)[0].to(like)
            self.state["together"] = together(growing.facts, growing.entities, growing.relations).to(like)
        else:
            self._extend(growing, near)

    def _extend(self, growing: Growing, near: Neighbours) -> None:
        if self.near is None:  # after a restart: the edges of earlier snapshots are in the state
            self.near = Neighbours(*(self.state[f"near.{name}"] for name in ("heads", "relations", "starts")))
        self.near = self.near.joined(near, growing.old_entities)
        more = growing.relations - len(self.state["normals"])
        for name in ("normals", "asked"):
            old = self.state[name]
            self.state[name] = torch.cat([old, old.new_zeros(more, old.shape[1])])
        self.state["together"] = torch.nn.functional.pad(self.state["together"], (0, more, 0, more))
        x = torch.cat([self.state["vectors"], growing.tables.entities.detach()[growing.old_entities :]])
        known = torch.arange(len(x), device=x.device) < growing.old_entities
        old, owners = known.clone(), self.near.owners
        for _ in range(ROUNDS):
            use = known[self.near.heads] & ~old[owners]
            edges = self.near.heads[use], self.near.relations[use]
            mean, found = means(owners[use], message(x, *edges, self.state["normals"]), len(x))
            x[found] = mean[found]
            known |= found
        self.state["vectors"] = x

    def encode(self, entities: Tensor, asked: Tensor) -> Tensor:
        """z of entities [n], each for a row of relations [n]: [n, width]."""
        assert self.near is not None
        state = self.state
        edges, owner = self.near.to(entities)
        relations = self.near.relations[edges]
        said = message(state["vectors"], self.near.heads[edges], relations, state["normals"])
        hidden = (state["asked"][asked] @ state["w_asked"])[owner] + said @ state["w_said"]
        raw = hidden.tanh() @ state["u"]
        return self._sum(entities, owner, said, raw, state["together"][asked[owner], relations])

    def _sum(self, entities: Tensor, owner: Tensor, said: Tensor, raw: Tensor, logic: Tensor) -> Tensor:
        """The sum of messages; `raw` goes through a softmax over each owner's edges."""
        top = raw.new_full((len(entities),), -torch.inf).scatter_reduce(0, owner, raw.detach(), "amax")
        weights = (raw - top[owner]).exp()
        total = raw.new_zeros(len(entities)).index_add(0, owner, weights)
        weights = weights / total[owner] + logic
        return self.state["vectors"][entities].index_add(0, owner, weights[:, None] * said)

    def everyone(self, asked: int) -> Tensor:
        """z of all entities for one row of relations: [entity, width]."""
        assert self.near is not None
        state = self.state
        hidden = (self.projected + state["asked"][asked] @ state["w_asked"]).tanh_()
        logic = state["together"][asked][self.near.relations]
        count = torch.arange(len(state["vectors"]), device=logic.device)
        return self._sum(count, self.owners, self.said, hidden @ state["u"], logic)

    def ready(self) -> None:
        """Compute what `everyone` shares between questions."""
        assert self.near is not None
        self.owners = self.near.owners
        self.said = message(self.state["vectors"], self.near.heads, self.near.relations, self.state["normals"])
        self.projected = self.said @ self.state["w_said"]

    def ranker(self, growing: Growing) -> Ranker | None:
        with torch.no_grad():
            self.ready()
        return AttentionRanker(self, growing.scorer, growing.tables.relations.detach())

    def learn(self, growing: Growing, facts: Tensor) -> float:
        """Add the gradient for relations, and step the encoder."""
        for name in LEARNED:
            self.state[name] = self.state[name].detach().requires_grad_()
        total = 0.0
        for start in range(0, len(facts), CHUNK):
            part = facts[start : start + CHUNK]
            others, heads = corrupted(growing, len(part))
            h, r, t = part.unbind(1)
            inverse = r ^ 1  # rows of a relation and its inverse are next to each other
            relation = growing.tables.relations.detach()[r].requires_grad_()
            asked = torch.where(heads, r[:, None], inverse[:, None])
            other = self.encode(others.flatten(), asked.flatten()).view(*others.shape, -1)
            scores = scores_of(growing, self.encode(h, r), relation, self.encode(t, inverse), other, heads)
            loss = self.margin.loss(growing.settings, scores) * len(part) / len(facts)
            loss.backward()
            growing.tables.to_relations.index_add_(0, r, relation.grad)
            total += float(loss.detach())
        gradients = {name: self.state[name].grad for name in LEARNED}
        for name in LEARNED:
            self.state[name] = self.state[name].detach()
        adam(self.state, gradients, self.rate)
        return total

    def accumulate(self, growing: Growing, batch: Tensor) -> float:
        return self.learn(growing, batch)

    def improved(self, growing: Growing) -> None:
        for name in LEARNED:
            self.state[f"best.{name}"] = self.state[name].clone()

    def end(self, growing: Growing) -> None:
        assert self.near is not None
        kept = {name: self.state.get(f"best.{name}", self.state[name]) for name in (*LEARNED, "together")}
        near = {f"near.{name}": getattr(self.near, name) for name in ("heads", "relations", "starts")}
        self.state = {**kept, **near}


class Given(Corrupting):
    """Facts in batches whose loss is the encoder's."""

    def accumulate(self, growing: Growing, batch: Tensor) -> float:
        return 0.0


class AttentionRanker:
    """Questions relation by relation: all entities are encoded once for each."""

    def __init__(self, attention: Attention, scorer: Scorer, relations: Tensor):
        self.attention, self.scorer, self.relations = attention, scorer, relations

    def scores(self, entities: Array, relations: Array) -> Iterator[tuple[Array, Tensor]]:
        with torch.no_grad():
            for relation in np.unique(relations):
                part = np.flatnonzero(relations == relation)
                vectors = self.scorer.place(self.attention.everyone(int(relation) ^ 1)).contiguous()
                heads = torch.from_numpy(entities[part]).to(vectors.device)
                asked = torch.full_like(heads, int(relation))
                placed = self.scorer.place(self.attention.encode(heads, asked))
                queries = self.scorer.ask(placed, self.relations[asked])
                yield part, self.scorer.similarity.pairs(queries, vectors)


def together(facts: Tensor, entities: int, relations: int) -> Tensor:
    """P(q, r) [relation, relation] from directed facts: how much of what touches q touches r, over the most."""
    touch = torch.zeros(entities, relations, device=facts.device)
    touch[facts[:, 0], facts[:, 1]] = 1
    shared = touch.T @ touch
    return normalize(shared, p=torch.inf, dim=1)


LAN = Method(
    name="lan",
    summary="inductive: later entities are what their neighbours say, weighted by the question",
    source="Wang et al. 2019 (logic attention), as in Cui et al. 2023",
    family="inductive",
    parts=lambda settings: [Attention(settings)],
    objective=lambda settings: Given(),
    relearns=False,
    options={"neighbours": Option(64, "facts of an entity that are aggregated, at most")},
)
