"""One block for all tasks: trained on and on, with and without something that keeps the old."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple

import torch
from torch import Tensor

from intarsia.adaptation.continual.methods.base import Groups, Lesson, Method
from intarsia.adaptation.continual.rows import Row

LEAST = 3


class Sequential(Method):
    """One LoRA, task after task: what forgetting looks like."""

    name, source = "sequential", "lower bound"
    summary = "one block, trained on task after task"


class Multitask(Method):
    """One LoRA on all tasks at once: what a stream gives up by coming one after the other."""

    name, source = "multitask", "upper bound"
    summary = "one block, trained on all tasks at once"
    joint = True


class Replay(Method):
    """A few examples of each old task are kept; of every later batch half are drawn from them."""

    name, source = "replay", "Rolnick et al. 2019; Chaudhry et al. 2019"
    summary = "one block; half of every batch are kept examples of old tasks"

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.memory: list[Row] = []

    def rows(self, batch: list[Row], lesson: Lesson) -> list[Row]:
        if not self.memory or len(batch) < 2:
            return batch
        half = len(batch) // 2
        return [*lesson.random.sample(batch, len(batch) - half), *lesson.random.choices(self.memory, k=half)]

    def end(self, lesson: Lesson) -> None:
        super().end(lesson)
        self.memory += kept(lesson, self.config.pseudo_share)
        self.reader.prepare(self.memory)

    def keep(self) -> list[tuple]:
        """The memory as JSON has it."""
        return [astuple(row) for row in self.memory]

    def take(self, rows: list[list]) -> None:
        """The inverse."""
        self.memory = [Row(task, tuple(p), tuple(a), tuple(t)) for task, p, a, t in rows]
        self.reader.prepare(self.memory)


class EWC(Method):
    """(strength / 2) sum F (p - p before)^2, with F the mean of squared gradients over a task after it was learned,
    added up over tasks (Kirkpatrick et al. 2017, equation 3)."""

    name, source = "ewc", "Kirkpatrick et al. 2017"
    summary = "one block; parameters that mattered to old tasks are held"
    STRENGTH = 0.1

    def begin(self, lesson: Lesson) -> Groups:
        groups = super().begin(lesson)
        self.parameters = groups[0][0]
        self.before = [parameter.detach().clone() for parameter in self.parameters]
        return groups

    def penalty(self, rows: Sequence[Row], lesson: Lesson) -> Tensor | None:
        if not self.state:
            return None
        held = [
            (self.state[str(i)].to(parameter) * (parameter - old).square()).sum()
            for i, (parameter, old) in enumerate(zip(self.parameters, self.before, strict=True))
        ]
        strength = self.STRENGTH if self.config.penalty is None else self.config.penalty
        return strength / 2 * torch.stack(held).sum()

    def end(self, lesson: Lesson) -> None:
        rows = lesson.random.sample(lesson.train, min(len(lesson.train), 64))
        squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        for row in rows:  # one by one: the square of a mean is not the mean of squares
            loss = self.reader.loss([row], self.weights([row]))
            for square, gradient in zip(squares, torch.autograd.grad(loss, self.parameters), strict=True):
                square += gradient.square() / len(rows)
        for i, square in enumerate(squares):
            self.state[str(i)] = self.state.get(str(i), torch.zeros_like(square)).to(square) + square
        super().end(lesson)


def kept(lesson: Lesson, share: float) -> list[Row]:
    """Some of a task's examples, at random: a share, three at least."""
    count = min(len(lesson.train), max(LEAST, math.ceil(share * len(lesson.train))))
    return lesson.random.sample(lesson.train, count)
