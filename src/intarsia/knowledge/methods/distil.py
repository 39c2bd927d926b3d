"""`distil`: a softmax over everything there is, and old questions that keep the answers they had."""

from __future__ import annotations

import math
from typing import Any

import torch

from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.learning.memory import remembered
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.tables import Copy
from intarsia.knowledge.objectives.softmax import Asked


class Recall(Part):
    """Questions of earlier snapshots go on being answered as they were before this one.

    The questions of a memory of facts, a few with every batch, are asked of the tables as they were and as they are;
    the loss is the divergence of the answers, KL(before || now). What was not there before has no share of the old
    answer: so a new entity learns at once which old questions it is no answer to, which nothing in the new facts says.
    That is what keeps later entities from ranking before the right answers of earlier questions (interference); that
    the old ranks stay as they are (drift) comes with it (Li & Hoiem 2016, learning without forgetting, with a memory
    of questions in place of the new data). The more old facts there are for each new one, the more they weigh, by the
    square root: a few facts must not move what many say."""

    def __init__(self, strength: float, memory: int, share: float, least: int):
        super().__init__()
        self.strength, self.memory, self.share, self.least = strength, memory, share, least
        self.weight = strength
        self.questions: Questions | None = None

    def begin(self, growing: Growing) -> None:
        self.questions = None
        if growing.index and self.strength and len(self.state.get("memory", ())):
            facts = self.state["memory"].numpy()
            self.questions = Questions.of(facts, growing.relations)
            old, new = len(growing.graph.facts(growing.index - 1, ("train",))), len(growing.new_facts()) / 2
            self.weight = self.strength * math.sqrt(max(1.0, old / max(1.0, new)))

    def accumulate(self, growing: Growing, batch: Any) -> float:
        if self.questions is None:
            return 0.0
        size = max(self.least, math.ceil(self.share * len(batch)))
        order = torch.randint(len(self.questions), (min(size, len(self.questions)),), generator=growing.random)
        drawn = self.questions.take(order.numpy())
        return self.weight * distilled(growing, growing.before, drawn, self.weight)

    def end(self, growing: Growing) -> None:
        self.state["memory"] = remembered(growing, self.state.get("memory"), self.memory)


def distilled(growing: Growing, before: Copy, drawn: Questions, strength: float) -> float:
    """Add strength times the gradient of the mean KL between the answers before and now, and give that mean."""
    asked = Asked.of(growing, drawn.entities, drawn.relations, drawn.tails)
    scorer, old = growing.scorer, len(before.entities)
    placed = scorer.place(before.entities)
    queries = scorer.ask(placed[asked.entities], before.relations[asked.relations])
    if asked.candidates is None:
        there, vectors = None, placed
    else:
        there = asked.candidates < old
        vectors = placed[asked.candidates[there]]
    then = scorer.similarity.pairs(queries, vectors).mul_(scorer.sharpness)
    if asked.correction is not None:
        then += asked.correction[there]
    then = then.log_softmax(1)
    now = asked.scores.log_softmax(1)
    kept = now[:, :old] if there is None else now[:, there]
    likely = then.exp()
    loss = float((likely * (then - kept)).sum(1).mean())
    weights = now.exp_()
    if there is None:
        weights[:, :old] -= likely
    else:
        weights[:, there] -= likely
    asked.learn(growing, weights.mul_(strength / len(drawn)))
    return loss


def _parts(settings: Settings) -> list[Part]:
    option = settings.option
    return [Recall(option("strength"), int(option("memory")), option("share"), int(option("least")))]


DISTIL = Method(
    name="distil",
    summary="softmax over all entities; old questions keep the answers they had, new entities included",
    source="softmax and N3: Lacroix et al. 2018; distillation: Li & Hoiem 2016; memory as in EMR (Wang et al. 2019)",
    family="distillation",
    settings=Settings(
        scorer="auto", loss="softmax", optimiser="adagrad", learning_rate=0.1, batch_size=None, epochs=30,
        patience=2, forgive=0, validate_on=4000, validate_all=True, candidates=3072,
    ),
    start="transfer",
    parts=_parts,
    options={
        "strength": Option(2.0, "weight of the old answers, where the new facts are as many as the old ones"),
        "memory": Option(20_000, "facts of earlier snapshots whose questions are kept"),
        "share": Option(0.5, "old questions for each new one in a batch"),
        "least": Option(256, "old questions in a batch at least"),
    },
)  # fmt: skip
