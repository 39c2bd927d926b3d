"""EMR: a memory of old facts is learned again with every batch."""

from __future__ import annotations

from typing import Any

from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.learning.memory import remembered
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.objectives import objective_for


class Replay(Part):
    """Every batch is extended by the whole memory, corrupted anew: the loss is the mean over the facts of both."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.objective, self.most = objective_for(settings), int(settings.option("memory"))
        self.softmax = settings.loss == "softmax"

    def accumulate(self, growing: Growing, batch: Any) -> float:
        if not growing.index or not len(self.state["memory"]):
            return 0.0
        facts = self.state["memory"].to(growing.device)
        given = Questions.of(facts.cpu().numpy(), growing.relations) if self.softmax else facts
        new, old = len(batch.tails if self.softmax else batch), len(facts)
        gradients = growing.tables.to_entities, growing.tables.to_relations
        for gradient in gradients:  # what is there is a mean over the new facts, what comes one over the old
            gradient *= new / old
        loss = self.objective.accumulate(growing, given)
        for gradient in gradients:
            gradient *= old / (new + old)
        return loss

    def end(self, growing: Growing) -> None:
        self.state["memory"] = remembered(growing, self.state.get("memory"), self.most)


MEMORY = {"memory": Option(5000, "facts of earlier snapshots that are kept")}
EMR = Method(
    name="emr",
    summary="a memory of old facts, learned again with every batch",
    source="Wang et al. 2019, as in Cui et al. 2023",
    family="memory",
    parts=lambda settings: [Replay(settings)],
    options=MEMORY,
)
