"""MEAN: an entity is the mean of what its neighbours say. Inductive: what comes later is only aggregated."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.learning.adam import adam
from intarsia.knowledge.learning.neighbours import Neighbours, message
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.transfer import means
from intarsia.knowledge.scorers.scorer import xavier

ROUNDS = 2


class Aggregated(Part):
    """The table of entities is what comes out of an encoder: the mean of an entity's own vector and its neighbours'
    messages (Hamaguchi et al. 2017). The encoder's vectors are trained on the first snapshot alone; an entity that
    comes later is the mean of the messages of its neighbours that are known by then, in two rounds."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.most, self.rate = int(settings.option("neighbours")), settings.learning_rate or 1e-4

    def begin(self, growing: Growing) -> None:
        tables = growing.tables
        near = Neighbours.of(growing.facts, growing.entities, self.most, growing.random)
        if growing.index:
            self.extend(growing, near)
            return
        self.near = near
        self.state["vectors"] = tables.entities.detach().clone()
        normals = xavier(growing.relations, tables.entities.shape[1], growing.relations, growing.random)
        self.state["normals"] = normals.to(tables.entities)
        self.stepped(growing)

    def extend(self, growing: Growing, near: Neighbours) -> None:
        """Rows of new entities from those of known ones."""
        x = growing.tables.entities.detach()
        known = torch.arange(len(x), device=x.device) < growing.old_entities
        old, owners = known.clone(), near.owners
        grown = growing.relations - len(self.state["normals"])
        normals = torch.cat([self.state["normals"], self.state["normals"].new_zeros(grown, x.shape[1])])
        self.state["normals"] = normals
        for _ in range(ROUNDS):
            use = known[near.heads] & ~old[owners]
            said = message(x, near.heads[use], near.relations[use], normals)
            mean, any_ = means(owners[use], said, len(x))
            x[any_] = mean[any_]
            known |= any_

    def encode(self) -> Tensor:
        vectors, normals = self.state["vectors"], self.state["normals"]
        said = message(vectors, self.near.heads, self.near.relations, normals)
        total = vectors.index_add(0, self.near.owners, said)
        return total / (1 + self.near.starts.diff())[:, None]

    def adjust(self, growing: Growing) -> None:
        names = ("vectors", "normals")
        for name in names:
            self.state[name] = self.state[name].detach().requires_grad_()
        self.encode().backward(growing.tables.to_entities)
        gradients = {name: self.state[name].grad for name in names}
        for name in names:
            self.state[name] = self.state[name].detach()
        adam(self.state, gradients, self.rate)
        growing.tables.to_entities.zero_()

    def stepped(self, growing: Growing) -> None:
        with torch.no_grad():
            growing.tables.entities.copy_(self.encode())

    def improved(self, growing: Growing) -> None:
        self.state["best.normals"] = self.state["normals"].clone()

    def end(self, growing: Growing) -> None:
        self.state = {"normals": self.state.get("best.normals", self.state["normals"])}


MEAN = Method(
    name="mean",
    summary="inductive: later entities are the mean of their neighbours' messages; nothing is learned again",
    source="Hamaguchi et al. 2017, as in Cui et al. 2023",
    family="inductive",
    parts=lambda settings: [Aggregated(settings)],
    relearns=False,
    options={"neighbours": Option(64, "facts of an entity that are aggregated, at most")},
)
