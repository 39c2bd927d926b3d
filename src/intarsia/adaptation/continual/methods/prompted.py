"""Soft prompts: one a task and chosen, all so far, or some of a pool."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from intarsia.adaptation.continual.methods.base import Groups, Lesson, Method
from intarsia.adaptation.continual.methods.blocks import Named, Routed
from intarsia.adaptation.continual.routing.pool import TAKEN, Pool
from intarsia.adaptation.continual.routing.router import Router
from intarsia.adaptation.continual.rows import Row
from intarsia.adaptation.continual.technique import ContinualConfig


class EPI(Routed):
    """A prompt a task; the nearest task's, by Mahalanobis distance of frozen features, answers."""

    name, source = "epi", "Wang et al. 2023 (EPI)"
    summary = "a soft prompt a task, the nearest task's is taken"
    prompts, hard = True, True


class Progressive(Named):
    """All prompts so far stand before the input, the newest of them is trained; answers need the task's name."""

    name, source = "progprompt", "Razdaibiedina et al. 2023"
    summary = "a soft prompt a task, put after all earlier ones; the task's name is given"
    prompts, joined = True, True

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        return self.ones(rows)


class L2P(Method):
    """A pool of ten prompts of five positions; an input takes three, which are trained with their keys."""

    name, source = "l2p", "Wang et al. 2022 (L2P)"
    summary = "a pool of soft prompts, of which an input takes three"
    prompts, joined = True, True
    SIZE, LENGTH, PULL = 10, 5, 0.5

    @classmethod
    def length(cls, config: ContinualConfig) -> int:
        return cls.LENGTH

    @classmethod
    def positions(cls, config: ContinualConfig, tasks: int) -> int:
        return cls.LENGTH * TAKEN

    def router(self) -> Router:
        weight = self.skills.embedding.weight
        return Pool(self.SIZE, weight.shape[1]).to(weight.device)

    @property
    def pool(self) -> Pool:
        router = self.skills.router
        assert isinstance(router, Pool)
        return router

    def begin(self, lesson: Lesson) -> Groups:
        while len(self.skills.names) < self.SIZE:
            self.skills.add(f"prompt {len(self.skills.names) + 1}", self.config.rank, 1.0)
        return [(self.skills.open(*range(self.SIZE)), 1.0), (self.pool.open(), 1.0)]

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        return self.pool(self.reader.pooled(rows))

    def penalty(self, rows: Sequence[Row], lesson: Lesson) -> Tensor | None:
        """Keys are drawn to the inputs that take them: -0.5 times the mean cosine."""
        pooled = self.reader.pooled(rows)
        taken = self.pool(pooled)
        return -self.PULL * (self.pool.likeness(pooled) * taken).sum() / taken.sum()

    def end(self, lesson: Lesson) -> None:
        self.pool.close()
        super().end(lesson)
