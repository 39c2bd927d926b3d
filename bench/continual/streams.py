"""Real streams of tasks, from the shared data: which tasks, how many examples, how they are asked."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from intarsia.data import TaskPair, read, shared_data
from intarsia.errors import BadInput

SIZES = {"train": 128, "dev": 50, "test": 64}
FILES = {"train": "train", "dev": "val", "test": "test"}
TEMPLATE = "{instruction}\n{input}\nOutput:"
ORDERS = {
    "mini3": (0, 1, 2),
    "mini3-back": (2, 1, 0),
    "mini6": (0, 1, 2, 3, 4, 5),
    "mini6-back": (5, 4, 3, 2, 1, 0),
}
"""Places in the orders `mini3` and `mini6` of the data: as they are, and turned round."""


def folder() -> Path:
    """Of the data. Raises `BadInput` where it is not there."""
    found = shared_data("continual")
    if found is None:
        raise BadInput("the data set 'continual' is not there: set INTARSIA_DATA to the folder that holds it")
    return found


def tasks_in(name: str) -> list[tuple[str, str]]:
    """(stream, task) of an order by name: the CPU-sized ones, or one of the published (`superni_order1`, ...)."""
    orders = json.loads((folder() / "orders.json").read_text())
    base = name.partition("-")[0]
    listed = [tuple(entry) if isinstance(entry, list) else (base.partition("_")[0], entry) for entry in orders[base]]
    return [listed[i] for i in ORDERS[name]] if name in ORDERS else listed


def examples_of(
    stream: str, task: str, sizes: dict[str, int] | None = None, *, generic: bool = False
) -> list[TaskPair]:
    """A task's examples in all splits, asked as the published code asks.

    - generic: of the long stream, the wording that several tasks share."""
    out: list[TaskPair] = []
    for split, word in FILES.items():
        file = folder() / stream / f"{task}.{word}.jsonl"
        rows = [row for row in read(file, "task") if isinstance(row, TaskPair)]
        if generic:
            wordings = [json.loads(line)["instruction_generic"] for line in file.read_text("utf-8").split("\n") if line]
            rows = [replace(row, instruction=wording) for row, wording in zip(rows, wordings, strict=True)]
        if sizes is not None:
            random.Random(7).shuffle(rows)
            rows = rows[: sizes[split]]
        if stream == "superni":
            rows = [
                replace(
                    row, instruction=f"Definition: {row.instruction}\n\nNow complete the following example -",
                    input=f"Input: {row.input}",
                )
                for row in rows
            ]  # fmt: skip
        out += [replace(row, task=_short(task), split=split) for row in rows]
    return out


def _short(task: str) -> str:
    """`task875_emotion_classification` as `emotion`: tables are narrow."""
    words = task.split("_")
    return words[1] if words[0].startswith("task") and len(words) > 1 else task


def stream_called(name: str, sizes: dict[str, int] | None = None) -> list[TaskPair]:
    """All examples of a stream, in its order."""
    return [row for stream, task in tasks_in(name) for row in examples_of(stream, task, sizes or SIZES)]
