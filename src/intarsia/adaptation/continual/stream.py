"""A stream ready to be learned: tasks in their order, each with its splits, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intarsia.data import TaskPair, shuffled
from intarsia.errors import BadInput, did_you_mean

LEAST = 4  # training examples below which a task cannot be learned


@dataclass(frozen=True)
class Task:
    """One task's examples: `dev` chooses and calibrates, `test` judges."""

    name: str
    train: list[TaskPair]
    dev: list[TaskPair]
    test: list[TaskPair]


def tasks_of(
    examples: Sequence[TaskPair], order: Sequence[str] = (), unseen: Sequence[str] = (), *,
    limits: tuple[int | None, int | None, int | None] = (None, None, None), seed: int = 0,
) -> tuple[list[Task], list[Task]]:  # fmt: skip
    """The tasks to learn, in order, and those that are only judged.

    - order: names, default: as they come, without `unseen`. limits: most examples for train, dev and test, drawn by
      the seed. Where a task has no dev or test examples, a tenth and a fifth of train are set aside.

    Raises `BadInput` for no tasks, one without training examples, a name that is unknown or stands twice, or records
    that are no examples of tasks."""
    if not examples:
        raise BadInput("the stream is empty: give examples of tasks")
    if odd := next((e for e in examples if not isinstance(e, TaskPair)), None):
        raise BadInput(f"the stream holds a {type(odd).__name__}; wanted: task, instruction, input and output")
    by_task: dict[str, list[TaskPair]] = {}
    for example in examples:
        by_task.setdefault(example.task, []).append(example)
    for given, word in ((order, "order"), (unseen, "unseen")):
        if twice := next((name for name in given if list(given).count(name) > 1), None):
            raise BadInput(f"{word}: the task '{twice}' stands twice")
        if unknown := next((name for name in given if name not in by_task), None):
            raise BadInput(
                f"{word}: no task '{unknown}'{did_you_mean(unknown, by_task)}; there are: {', '.join(by_task)}"
            )
    if both := next((name for name in order if name in unseen), None):
        raise BadInput(f"the task '{both}' cannot be learned and unseen")
    names = list(order) or [name for name in by_task if name not in unseen]
    if not names:
        raise BadInput("the stream has no task to learn: all are unseen")
    return (
        [_task(name, by_task[name], limits, seed, learned=True) for name in names],
        [_task(name, by_task[name], limits, seed, learned=False) for name in unseen],
    )


def _task(name: str, examples: list[TaskPair], limits: Sequence[int | None], seed: int, *, learned: bool) -> Task:
    parts = {split: [e for e in examples if (e.split or "train") == split] for split in ("train", "dev", "test")}
    answers = [bool(e.target.strip()) for e in examples]
    if not any(answers):
        raise BadInput(f"task '{name}': no example has an output")
    if not all(answers):
        raise BadInput(f"task '{name}': {answers.count(False)} of {len(answers)} examples have no output")
    if _forms(examples) == {True, False}:
        raise BadInput(f"task '{name}': some examples have an instruction and others none: give all of them one form")
    for split, share in (("test", 5), ("dev", 10)):
        if not parts[split] and parts["train"]:
            places = shuffled(range(len(parts["train"])), seed, f"{name}-{split}-")  # type: ignore[type-var]
            chosen = set(places[: max(1, len(places) // share)])
            parts[split] = [e for i, e in enumerate(parts["train"]) if i in chosen]
            parts["train"] = [e for i, e in enumerate(parts["train"]) if i not in chosen]
    if learned and len(parts["train"]) < LEAST:
        raise BadInput(f"task '{name}': {len(parts['train'])} training examples; at least {LEAST} are wanted")
    if not learned and not parts["test"]:
        raise BadInput(f"task '{name}': no test examples")
    cut = [
        part if most is None or len(part) <= most else shuffled(part, seed, name)[:most]
        for part, most in zip(parts.values(), limits, strict=True)
    ]
    return Task(name, *cut)


def _forms(examples: Sequence[TaskPair]) -> set[bool]:
    return {bool(e.instruction.strip()) for e in examples}
