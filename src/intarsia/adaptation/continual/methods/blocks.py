"""A block a task: alone with the task's name, added up, or chosen by a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from intarsia.adaptation.continual.methods.base import Groups, Lesson, Method
from intarsia.adaptation.continual.routing.closed import Closed, Statistics, features, fitted_temperature
from intarsia.adaptation.continual.routing.router import ByName, Router, Same
from intarsia.adaptation.continual.rows import Row


class Blocks(Method):
    """A fresh block for every task; earlier ones are frozen."""

    frozen = True

    def begin(self, lesson: Lesson) -> Groups:
        known = lesson.name in self.skills.names  # the task came before: its block goes on
        self.block = self.skills.names.index(lesson.name) if known else self.new_block(lesson)
        return [(self.skills.open(self.block), 1.0)]

    def new_block(self, lesson: Lesson) -> int:
        return self.skills.add(lesson.name, self.config.rank, self.scale)

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        return self.ones(rows, self.block)


class Named(Blocks):
    """Whoever asks says the task; rows of tasks that are not there get no block."""

    def router(self) -> Router:
        return ByName()

    def serve(self, rows: Sequence[Row]) -> Tensor | None:
        if not self.skills.names:
            return None
        weights = torch.zeros(len(rows), len(self.skills.names), device=self.reader.model.device)
        for i, row in enumerate(rows):
            if row.task in self.skills.names:
                weights[i] = self.skills.row(self.skills.names.index(row.task))
        return weights


class Oracle(Named):
    """Each task's own block, for whoever knows the task: nothing is forgotten, nothing is shared."""

    name, source = "oracle", "upper bound without transfer"
    summary = "a block a task; the task's name is given"


class Summed(Blocks):
    """A new block each task, added to all that were there (O-LoRA without its penalty)."""

    name, source = "inclora", "Wang et al. 2023 (O-LoRA), without the penalty"
    summary = "a block a task, all added up"

    def router(self) -> Router:
        return Same()

    def new_block(self, lesson: Lesson) -> int:
        block = super().new_block(lesson)
        router = self.skills.router
        assert isinstance(router, Same)
        router.blocks = len(self.skills.names)
        return block

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        return self.ones(rows)


class Orthogonal(Summed):
    """The same, with strength * sum over earlier blocks of the absolute entries of A_i A_new^T (Wang et al. 2023), and
    `penalty_norm` * the sum of the Euclidean norms of A_new and B_new (its released code)."""

    name, source = "olora", "Wang et al. 2023 (O-LoRA)"
    summary = "a block a task, all added up, kept orthogonal to the earlier ones"
    STRENGTH = 0.5

    def penalty(self, rows: Sequence[Row], lesson: Lesson) -> Tensor | None:
        strength = self.STRENGTH if self.config.penalty is None else self.config.penalty
        total = torch.zeros((), device=self.reader.model.device)
        for stack in self.skills.stacks:
            if self.block:
                old = stack.down[: stack.span(self.block).start]
                total = total + strength * (old @ stack.new_down.T).abs().sum().to(total)
            if self.config.penalty_norm:
                norms = stack.new_down.norm() + stack.new_up.norm()
                total = total + self.config.penalty_norm * norms.to(total)
        return total


class Routed(Blocks):
    """A block a task, and the classifier in closed form that tells tasks apart.

    - state: `earlier`, the temperature and number of tasks as a run begins."""

    hard = False

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.held: list[tuple[int, Tensor]] = []  # of the tasks of this run: number of the task, held-out prompts

    def router(self) -> Router:
        return Closed(hard=self.hard)

    @property
    def closed(self) -> Closed:
        router = self.skills.router
        assert isinstance(router, Closed)
        return router

    def begin_run(self) -> None:
        self.state["earlier"] = torch.tensor([self.closed.temperature, len(self.closed.tasks)], dtype=torch.float64)

    def took_up(self, lessons: Sequence[Lesson]) -> None:
        self.held = [(self.skills.names.index(lesson.name), self._dev(lesson)) for lesson in lessons]

    def begin(self, lesson: Lesson) -> Groups:
        self.known = lesson.name in self.skills.names
        groups = super().begin(lesson)
        self.statistics = Statistics.of(features(self.reader.pooled(lesson.train)))
        return groups

    def end(self, lesson: Lesson) -> None:
        super().end(lesson)
        if self.known:
            self.closed.update(self.block, self.statistics)
        else:
            self.closed.add(self.statistics)
        self.held.append((self.block, self._dev(lesson)))
        self._calibrate()

    def _dev(self, lesson: Lesson) -> Tensor:
        return self.reader.pooled(lesson.dev or lesson.train)

    def _calibrate(self) -> None:
        """The temperature that suits the held-out prompts of this run's tasks; tasks of earlier runs, whose prompts are
        gone, have theirs in the mean."""
        if len(self.closed.tasks) < 2 or self.hard:
            return
        scores = self.closed.scores(torch.cat([pooled for _, pooled in self.held]))
        true = torch.cat([torch.full((len(pooled),), number) for number, pooled in self.held])
        found = fitted_temperature(scores, true)
        before, earlier = self.state["earlier"].tolist()
        share = earlier / (earlier + len(self.held)) if earlier > 1 else 0.0
        self.closed.temperature = math.exp(share * math.log(before) + (1 - share) * math.log(found))

    def routed(self, rows: Sequence[Row]) -> Tensor | None:
        with torch.no_grad():
            return self.closed.chances(self.reader.pooled(rows)) if self.closed.tasks else None


class Snapshot(Routed):
    """One LoRA trained on and on, of which each task keeps a copy; the classifier's best task alone answers."""

    name, source = "snapshot", "sequential tuning with a copy a task; selector: Wang et al. 2023 (EPI)"
    summary = "sequential, with a copy a task that a classifier chooses from"
    hard = True

    def new_block(self, lesson: Lesson) -> int:
        last = len(self.skills.names) - 1
        return self.skills.add(lesson.name, self.config.rank, self.scale, like=last if last >= 0 else None)
