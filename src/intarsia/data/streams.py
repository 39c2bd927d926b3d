"""Streams of tasks: files of examples, several tasks with their splits, in an order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from intarsia.data.records import Record, TaskPair, TextPair
from intarsia.errors import BadInput, did_you_mean

SPLITS = ("train", "dev", "test")
_SAID = {"val": "dev", "valid": "dev", "validation": "dev", "eval": "dev"}
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def holds_tasks(folder: Path) -> bool:
    """Whether a folder holds files of tasks (`NAME.train.jsonl`), or a folder for each (`NAME/train.jsonl`)."""
    return any(task for task, _, _ in _files(folder))


def is_stream(folder: Path) -> bool:
    """Whether a folder holds the splits of several tasks, and none of its own."""
    from intarsia.data.readers import read

    found = [(task, split, file) for task, split, file in _files(folder) if split]
    if len({task for task, *_ in found}) < 2 or any(_split(file.stem) for file in folder.iterdir()):
        return False
    try:
        return isinstance(read(found[0][2], limit=1)[0], TextPair)
    except BadInput:
        return True  # whoever reads the stream says what is wrong with it


def read_stream(path: str | Path, order: Sequence[str] | None = None) -> list[TaskPair]:
    """All examples of a stream, task after task.

    - path: a folder with `NAME.train.jsonl`, `NAME.dev.jsonl` (or `val`), `NAME.test.jsonl` for each task, or with a
      folder for each that holds such files, or with one file `NAME.jsonl` a task; or one file with a column `task`.
    - order: names of tasks, all or some; default: by name, numbers as numbers (in one file: as they come).

    A file holds instruction, input (may be missing), output and, where several answers are right, `outputs`. A column
    `split` divides a file. Raises `BadInput` for a task without examples, one that is there twice, a name in `order`
    that is not, or a file of another form."""
    path = Path(path)
    if path.is_dir():
        found = _read_files(path)
    else:
        from intarsia.data.readers import read

        found = _checked(path, read(path, "task"))
    if order is None:
        return found
    names = list(dict.fromkeys(example.task for example in found))
    if twice := next((name for name in order if list(order).count(name) > 1), None):
        raise BadInput(f"order: the task '{twice}' stands twice")
    if unknown := next((name for name in order if name not in names), None):
        raise BadInput(f"{path}: no task '{unknown}'{did_you_mean(unknown, names)}; there are: {', '.join(names)}")
    place = {name: i for i, name in enumerate(order)}
    return sorted((e for e in found if e.task in place), key=lambda example: place[example.task])


def _read_files(folder: Path) -> list[TaskPair]:
    from intarsia.data.readers import read

    found: list[TaskPair] = []
    seen: dict[tuple[str, str], Path] = {}
    for task, split, file in sorted(_files(folder), key=lambda entry: (_natural(entry[0]), entry[1])):
        if (task, split) in seen:
            raise BadInput(f"{folder}: the task '{task}' is there twice: {seen[task, split].name} and {file.name}")
        if split and (task, "") in seen:
            raise BadInput(f"{folder}: the task '{task}' is there twice: {seen[task, ''].name} and {file.name}")
        seen[task, split] = file
        found += _checked(file, read(file, "task"), task, split)
    if not found:
        raise BadInput(f"{folder}: no tasks in it; wanted files such as NAME.train.jsonl and NAME.test.jsonl")
    return found


def _files(folder: Path) -> list[tuple[str, str, Path]]:
    """(task, split or "", file) of all files of tasks in a folder."""
    out = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            inside = [f for f in sorted(entry.iterdir()) if f.suffix in SUFFIXES and _split(f.stem)]
            out += [(entry.name, _split(file.stem), file) for file in inside]
        elif entry.suffix in SUFFIXES:
            task, _, last = entry.stem.rpartition(".")
            if task and _split(last):
                out.append((task, _split(last), entry))
            elif not _split(entry.stem) and entry.suffix == ".jsonl":
                out.append((entry.stem, "", entry))
    return out


def _split(word: str) -> str:
    word = word.lower()
    word = _SAID.get(word, word)
    return word if word in SPLITS else ""


def _checked(file: Path, records: Sequence[Record], task: str = "", split: str = "") -> list[TaskPair]:
    """The records as examples of `task` (empty: as they say)."""
    out = []
    for record in records:
        assert isinstance(record, TaskPair)
        said = split or record.split
        if said and not _split(said):
            raise BadInput(f"{file}: unknown split '{said}'; wanted: train, dev or test")
        if not (name := task or record.task):
            raise BadInput(f"{file}: no column 'task': name the file after its task (NAME.train.jsonl), in a folder")
        out.append(replace(record, task=name, split=_split(said)))
    return out


def _natural(name: str) -> list[tuple[int, int, str]]:
    """`task9` before `task10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
