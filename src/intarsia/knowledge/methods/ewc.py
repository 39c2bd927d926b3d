"""EWC: old vectors held by how much the old loss depends on them."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.pull import Pull
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.objectives import objective_for


class Fisher(Pull):
    """The weight is the mean of squared gradients of earlier losses, at the vectors that were learned.

    Squared gradients of batches stand for the Fisher information, summed over snapshots; they are divided by their own
    mean, since gradients of this loss are so small that the weights of the papers would hold nothing."""

    def weigh(self, growing: Growing) -> tuple[Tensor, Tensor] | None:
        return self.state["entities"], self.state["relations"]

    def end(self, growing: Growing) -> None:
        objective, tables = objective_for(self.settings), growing.tables
        sums = [torch.zeros_like(tables.entities), torch.zeros_like(tables.relations)]
        for batch in objective.batches(growing):
            tables.clear()
            objective.accumulate(growing, batch)
            sums[0] += tables.to_entities.square()
            sums[1] += tables.to_relations.square()
        for name, new in zip(("entities", "relations"), sums, strict=True):
            new /= new.mean().clamp_min(1e-30)
            if name in self.state:
                new[: len(self.state[name])] += self.state[name]
            self.state[name] = new.detach()

    def __init__(self, settings: Settings):
        super().__init__(settings.option("strength"))
        self.settings = settings


def _parts(settings: Settings) -> list[Part]:
    return [Fisher(settings)]


EWC = Method(
    name="ewc",
    summary="old vectors held by the squared gradients of earlier losses",
    source="Kirkpatrick et al. 2017, as in Cui et al. 2023",
    family="regularisation",
    parts=_parts,
    options={"strength": Option(0.1, "weight of the pull (the paper: 0.01 on FACT and HYBRID)")},
)
