"""GEM: a step may not raise the loss on what is remembered of any earlier snapshot."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.graph.growing import directed
from intarsia.knowledge.learning.parts import Growing, Method, Part
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.methods.emr import MEMORY
from intarsia.knowledge.objectives import objective_for

MARGIN, RIDGE = 0.5, 1e-3


class Projection(Part):
    """A gradient g that goes against the gradient of some snapshot's memory is replaced by the nearest one that does
    not: g + G^T v with v = argmin 1/2 v^T G G^T v + g^T G^T v, v >= margin (Lopez-Paz & Ranzato 2017, equation 11).

    The memory is divided evenly among the snapshots so far."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.objective, self.most = objective_for(settings), int(settings.option("memory"))
        self.softmax = settings.loss == "softmax"

    def adjust(self, growing: Growing) -> None:
        if not growing.index:
            return
        tables = growing.tables
        now = torch.cat([tables.to_entities.flatten(), tables.to_relations.flatten()])
        past = []
        for i in range(growing.index):
            facts = self.state[f"memory.{i}"].to(growing.device)
            if not len(facts):
                continue
            tables.clear()
            given = Questions.of(facts.cpu().numpy(), growing.relations) if self.softmax else facts
            self.objective.accumulate(growing, given)
            past.append(torch.cat([tables.to_entities.flatten(), tables.to_relations.flatten()]))
        if past and (torch.stack(past) @ now < 0).any():
            now = project(now, torch.stack(past))
        size = tables.to_entities.numel()
        tables.to_entities.copy_(now[:size].view_as(tables.entities))
        tables.to_relations.copy_(now[size:].view_as(tables.relations))

    def end(self, growing: Growing) -> None:
        new = torch.from_numpy(growing.graph.snapshots[growing.index].train)
        share = self.most // (growing.index + 1)
        self.state[f"memory.{growing.index}"] = new
        for name, facts in self.state.items():
            if name == f"memory.{growing.index}":
                kept = facts[growing.shuffled(len(facts))[:share]]
                self.state[name] = torch.from_numpy(directed(kept.numpy()))
            else:  # both directions of a fact stand half the length apart, and go together
                half = len(facts) // 2
                rows = growing.shuffled(half)[:share]
                self.state[name] = torch.cat([facts[rows], facts[rows + half]])


def project(gradient: Tensor, memory: Tensor, margin: float = MARGIN, ridge: float = RIDGE) -> Tensor:
    """The gradient [n] nearest to the given one that agrees with those of the memories [m, n].

    Solved for the few multipliers by coordinate descent, in float64. The scale of the margin is that of gradients whose
    longest has length 1."""
    scale = float(torch.cat([gradient[None], memory]).norm(dim=1).max()) or 1.0
    g, m = (gradient / scale).double(), (memory / scale).double()
    inner = m @ m.T + ridge * torch.eye(len(m), dtype=torch.float64, device=m.device)
    linear = m @ g
    v = torch.full_like(linear, margin)
    for _ in range(1000):
        last = v.clone()
        for i in range(len(v)):
            rest = linear[i] + inner[i] @ v - inner[i, i] * v[i]
            v[i] = max(margin, float(-rest / inner[i, i]))
        if float((v - last).abs().max()) < 1e-10:
            break
    return ((g + v @ m) * scale).to(gradient)


GEM = Method(
    name="gem",
    summary="gradients projected so that no snapshot's memory loses",
    source="Lopez-Paz & Ranzato 2017, as in Cui et al. 2023",
    family="memory",
    parts=lambda settings: [Projection(settings)],
    options=MEMORY,
)
