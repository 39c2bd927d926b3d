"""`Method`: a way to take on one task after another, in the one loop (`learning.py`)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from intarsia.adaptation.continual.reading import Reader
from intarsia.adaptation.continual.routing.router import Router, Same
from intarsia.adaptation.continual.rows import Row
from intarsia.adaptation.continual.skills import Skills
from intarsia.adaptation.continual.technique import ContinualConfig

Groups = list[tuple[list[torch.nn.Parameter], float]]


@dataclass
class Lesson:
    """A task while it is learned: its rows, its number among the tasks, and the seed of its choices.

    - start: what it begins from, of those that its method names."""

    name: str
    number: int
    train: list[Row]
    dev: list[Row]
    seed: int
    random: random.Random = field(init=False)
    start: Any = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


class Method:
    """Every moment may be left as it is here: one block, which every task goes on training.

    - state: tensors that the next task needs, saved with the run. facts: what is told about each task."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    prompts: ClassVar[bool] = False
    """Whether blocks are soft prompts, not low-rank updates; joined: whether several stand one after the other."""
    joined: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    """Whether all tasks are learned at once."""
    frozen: ClassVar[bool] = False
    """Whether a block stays as it is once it is learned, so that scores change with the weights alone."""

    @classmethod
    def length(cls, config: ContinualConfig) -> int:
        """Positions of a soft prompt."""
        return config.prompt_length

    @classmethod
    def positions(cls, config: ContinualConfig, tasks: int) -> int:
        """How much of the network's context soft prompts take, with so many tasks."""
        return 0 if not cls.prompts else cls.length(config) * (tasks if cls.joined else 1)

    def __init__(self, reader: Reader, config: ContinualConfig):
        self.reader, self.config = reader, config
        self.skills: Skills = reader.skills
        self.state: dict[str, Tensor] = {}
        self.facts: dict[str, float | str] = {}
        if self.skills.router is None:
            self.skills.router = self.router()

    def router(self) -> Router:
        """What decides in the bundle."""
        return Same()

    @property
    def scale(self) -> float:
        return self.config.alpha / self.config.rank

    # ---- a run

    def keep(self) -> Any:
        """What is kept beside `state`, as JSON has it (examples, say)."""
        return None

    def take(self, kept: Any) -> None:
        """The inverse."""

    def begin_run(self) -> None:
        """The first task of a run is about to come."""

    def took_up(self, lessons: Sequence[Lesson]) -> None:
        """The run goes on after these lessons, which it learned before it was stopped."""

    # ---- one task

    def starts(self, lesson: Lesson) -> Sequence[Any]:
        """What the task may begin from: the `start` of its lesson. Several are tried for a few steps, each in turn."""
        return (None,)

    def lay_aside(self) -> Any:
        """What has begun, as it is, out of the way of another start."""
        raise NotImplementedError

    def take_back(self, kept: Any) -> None:
        """The inverse."""
        raise NotImplementedError

    def begin(self, lesson: Lesson) -> Groups:
        """What is trained: parameters, with factors on the learning rate."""
        if not self.skills.names:
            self.skills.add("shared", self.config.rank, self.scale)
            router = self.skills.router
            assert isinstance(router, Same)
            router.blocks = 1
        return [(self.skills.open(0), 1.0)]

    def rows(self, batch: list[Row], lesson: Lesson) -> list[Row]:
        """The rows of a step, from the batch that is due."""
        return batch

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        """[row, block] while a task is learned."""
        return self.ones(rows)

    def penalty(self, rows: Sequence[Row], lesson: Lesson) -> Tensor | None:
        """What is added to the loss."""
        return None

    def end(self, lesson: Lesson) -> None:
        """The task is learned."""
        self.skills.close()

    # ---- answers

    def serve(self, rows: Sequence[Row]) -> Tensor | None:
        """[row, block] when rows are answered: what the router says. (Methods that need its name see a row's task.)"""
        with torch.no_grad():
            return self.skills.weigh(self.reader.pooled(rows)) if self.skills.names else None

    def routed(self, rows: Sequence[Row]) -> Tensor | None:
        """[row, task] chances by which tasks are told apart, where a method does so."""
        return None

    # ----

    def ones(self, rows: Sequence[Row], block: int | None = None) -> Tensor:
        """Every block alike, or one alone."""
        device = self.reader.model.device
        if block is None:
            return torch.ones(len(rows), len(self.skills.names), device=device)
        weights = torch.zeros(len(rows), len(self.skills.names), device=device)
        weights[:, block] = 1
        return weights
