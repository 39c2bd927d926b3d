"""One task: the best of its starts, and all its steps."""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch

from intarsia.adaptation.continual.finding import Learned
from intarsia.adaptation.continual.methods import Lesson, Method
from intarsia.errors import Note
from intarsia.training.loop import Training, fixed_batches, seeded

FEW = 16  # steps below which a task is hardly learned
HELD = 64  # most examples on which starts that were tried are compared


def teach(method: Method, lesson: Lesson) -> Learned:
    """Learn a task. What is told of it holds the steps of the start that was taken; its seconds hold all that were
    spent, on the other starts too."""
    config = method.config
    wall, cpu = time.perf_counter(), time.process_time()
    with seeded(lesson.seed):
        training = _begun(method, lesson)
        losses = training.go().losses
        if len(losses) < FEW and config.max_steps is None:
            told = f"{lesson.name}: {len(losses)} steps are few; with so few examples give more --epochs"
            warnings.warn(Note(told), stacklevel=2)
        method.end(lesson)
    return Learned(
        name=lesson.name, examples=len(lesson.train), steps=len(losses), losses=[round(loss, 5) for loss in losses],
        seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu, facts=dict(method.facts),
    )  # fmt: skip


def _begun(method: Method, lesson: Lesson) -> Training:
    """Of one start: before its first step. Of several: the one whose mean loss on held-out examples is lowest after
    `start_steps`, with what it has learned so far; to the bit as if there had been no other."""
    starts = method.starts(lesson)
    if len(starts) == 1:
        lesson.start = starts[0]
        return _training(method, lesson, f"learning {lesson.name}")
    tried: list[tuple[float, Training, Any, torch.Tensor]] = []
    told: dict[str, float | str] = {}
    for lesson.start in starts:
        with seeded(lesson.seed):
            training = _training(method, lesson, f"learning {lesson.name}")
            steps = len(training.go(method.config.start_steps).losses)
            loss = method.reader.mean_loss((lesson.dev or lesson.train)[:HELD], method.weights)
            told[f"loss after {steps} steps, {method.facts['start']}"] = round(loss, 4)
            tried.append((loss, training, method.lay_aside(), torch.get_rng_state()))
    _, training, kept, drawn = min(tried, key=lambda one: one[0])
    method.take_back(kept)
    method.facts |= told
    torch.set_rng_state(drawn)
    return training


def _training(method: Method, lesson: Lesson, told: str) -> Training:
    config = method.config
    groups = method.begin(lesson)
    batches = fixed_batches([len(row.ids) for row in lesson.train], config.batch_size, lesson.seed)

    def loss_of(number: int) -> torch.Tensor:
        rows = method.rows([lesson.train[i] for i in batches[number]], lesson)
        loss = method.reader.loss(rows, method.weights(rows))
        more = method.penalty(rows, lesson)
        return loss if more is None else loss + more

    return Training(groups, len(batches), loss_of, config, lesson.seed, told)
