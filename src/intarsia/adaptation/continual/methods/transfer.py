"""The default: every task has a row of weights over the blocks there are, learned with it and then frozen.

SAPT's reflection holds the attention of old inputs at their task's mean. With tasks told apart by a classifier in
closed form, that mean can stand there as it is: a row. So there is nothing to reflect on and nothing to forget; what
can go wrong is the classifier, and that is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from intarsia.adaptation.continual.methods.base import Groups, Lesson
from intarsia.adaptation.continual.methods.blocks import Routed
from intarsia.adaptation.continual.rows import Row

OWN_WARM, OWN_FRESH = 0.9, 0.7  # weight of a new block in its task's row, as learning begins
TRIED = 32  # held-out examples on which starts are compared
GAIN = 0.02  # share of the loss that a copied start must save over a fresh one


class Transfer(Routed):
    """weights(x) = sum_k p_k(x) M_k; row M_k is own + (1 - own) * softmax(theta_k), own at least `own_floor`."""

    name, source = "transfer", "own; after Zhao et al. 2024 (SAPT)"
    summary = "a block and a row of weights a task, tasks told apart in closed form"

    def starts(self, lesson: Lesson) -> Sequence[int | None]:
        """A block to copy, a fresh one (None), or both where that is to be tried."""
        self.told: dict[str, float | str] = {}
        if not self.config.warm or lesson.name in self.skills.names:
            return (None,)
        like, self.told = self._likeliest(lesson)
        return (like,) if like is None or not self.config.start_steps else (like, None)

    def begin(self, lesson: Lesson) -> Groups:
        if lesson.name in self.skills.names:
            self.theta, self.facts = None, {"start": "its own block"}
            return super().begin(lesson)
        self.like = like = lesson.start
        groups = super().begin(lesson)
        count = len(self.skills.names)
        own = OWN_FRESH if like is None else OWN_WARM
        others = self._likeness(like)
        if count == 1:
            start = torch.ones(1)
        else:
            self.floor = floor = self.config.own_floor
            own = max(own, (1 + floor) / 2)
            share = torch.cat([(1 - own) * others, torch.tensor([own - floor])]) / (1 - floor)
            start = share.clamp(min=1e-3)
        self.theta = torch.nn.Parameter(start.log().to(self.reader.model.device))
        self.facts = {"start": "fresh" if like is None else self.skills.names[like]} | self.told
        return [*groups, ([self.theta], 10.0)] if count > 1 else groups

    def new_block(self, lesson: Lesson) -> int:
        return self.skills.add(lesson.name, self.config.rank, self.scale, like=self.like)

    def lay_aside(self) -> Any:
        return self.skills.take_out(), self.theta, self.facts

    def take_back(self, kept: Any) -> None:
        taken, self.theta, self.facts = kept
        self.skills.put_back(taken)

    def row(self) -> Tensor:
        """[block] of the task that is learned."""
        if self.theta is None:  # a task that came before: what it uses stays
            return self.closed.rows[self.block].to(self.reader.model.device)
        if len(self.theta) == 1:
            return torch.ones_like(self.theta)
        own = torch.zeros_like(self.theta)
        own[-1] = self.floor
        return own + (1 - self.floor) * self.theta.softmax(0)

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        return self.row().expand(len(rows), -1)

    def end(self, lesson: Lesson) -> None:
        row = self.row().detach().cpu()
        super().end(lesson)
        self.closed.rows[self.block, : len(row)] = row

    def _likeliest(self, lesson: Lesson) -> tuple[int | None, dict[str, float | str]]:
        """The block to copy: the one under which held-out answers are likeliest, if that is likelier than
        without any; its mean loss beside that of none."""
        if not self.skills.names:
            return None, {}
        some = (lesson.dev or lesson.train)[:TRIED]
        bare = self.reader.mean_loss(some, lambda rows: torch.zeros_like(self.ones(rows)))
        losses = [
            self.reader.mean_loss(some, lambda rows, block=block: self.ones(rows, block))
            for block in range(len(self.skills.names))
        ]
        best = min(range(len(losses)), key=losses.__getitem__)
        told = {"loss without blocks": round(bare, 4), "loss at the start": round(min(bare, losses[best]), 4)}
        return (best if losses[best] < (1 - GAIN) * bare else None), told

    def _likeness(self, like: int | None) -> Tensor:
        """[earlier block] shares of what is not the new block's own: all to the block that was copied, else by how near
        the tasks' prompts are."""
        count = len(self.skills.names) - 1
        if like is not None:
            return torch.nn.functional.one_hot(torch.tensor(like), count).float()
        if not count:
            return torch.zeros(0)
        return (-self.closed.distances(self.statistics)).softmax(0).float()
