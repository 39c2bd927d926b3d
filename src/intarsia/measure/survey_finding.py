"""`Survey`: what a data set holds, and how it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pydantic

from intarsia.report import Column, Finding, Table

MOST_SPEAKERS = 12
MOST_LABELS = 40
LONGEST_TEXT = 90


class Lengths(pydantic.BaseModel):
    """A length over all records: mean, median, the length that 95 % do not exceed, the largest, the sum; and how many
    exceed the network's context."""

    n: int
    mean: float
    median: float
    p95: int
    most: int
    total: int
    over: int | None = None

    @classmethod
    def of(cls, values: Sequence[int], limit: int | None = None) -> Lengths:
        """Of whole numbers, one or more; `limit` is the context."""
        ordered = sorted(values)
        n = len(ordered)
        return cls(
            n=n,
            mean=sum(ordered) / n,
            median=(ordered[(n - 1) // 2] + ordered[n // 2]) / 2,
            p95=ordered[math.ceil(0.95 * n) - 1],
            most=ordered[-1],
            total=sum(ordered),
            over=None if limit is None else sum(value > limit for value in ordered),
        )


class SplitSurvey(pydantic.BaseModel):
    """One split.

    - kind: the records' type. groups: how many dialogues (or other groups) they are in; None: they name none.
    - counted: records by label, the most frequent first (by task or relation, where `counts` says so).
    - unlabelled: turns that are context only. missing: turns passed over inside dialogues. clips: turns with a video.
    - lengths: by what is counted (`tokens a turn`). first: the first records, as plain data."""

    split: str
    kind: str
    records: int
    grouped: str = "group"
    groups: int | None = None
    counts: str = "label"
    counted: dict[str, int] = {}
    unlabelled: int | None = None
    speakers: dict[str, int] = {}
    missing: int | None = None
    clips: int = 0
    lengths: dict[str, Lengths] = {}
    first: list[dict[str, Any]] = []


class MarkedRecord(pydantic.BaseModel):
    """A record in tokens as a technique learns from it: those with `learnt` bear the loss.

    - record: its number in the split, from 1. by: the technique. tokens: as texts, one for each of `ids`."""

    split: str
    record: int
    by: str
    ids: list[int]
    tokens: list[str]
    learnt: list[bool]


class Survey(Finding):
    """A data set's splits. `context`: the most tokens the network takes. `marked`: the first records as tokens;
    `unmarked` says why there are none, where some were asked for."""

    splits: list[SplitSurvey]
    context: int | None = None
    marked: list[MarkedRecord] = pydantic.Field([])
    unmarked: str = ""

    def tables(self) -> list[Table]:
        """Splits, lengths, labels, speakers, and the first records."""
        tables = [self._splits(), self._lengths(), self._shares(), self._speakers(), *map(_first, self.splits)]
        return [table for table in tables if table.rows]

    def _splits(self) -> Table:
        named = next((split.grouped for split in self.splits if split.groups), "group")
        wanted: list[tuple[Column, Any]] = [
            (Column(name="split"), lambda s: s.split),
            (Column(name="kind"), lambda s: s.kind),
            (Column(name="records"), lambda s: s.records),
            (Column(name=f"{named}s"), lambda s: s.groups),
            (Column(name=f"{self.splits[0].counts}s"), lambda s: len(s.counted) or None),
            (Column(name="without label"), lambda s: s.unlabelled),
            (Column(name="speakers"), lambda s: len(s.speakers) or None),
            (Column(name="missing turns", help="numbers passed over inside a dialogue"), lambda s: s.missing),
            (Column(name="with clip"), lambda s: s.clips or None),
        ]
        kept = [(column, get) for column, get in wanted if any(get(split) is not None for split in self.splits)]
        rows = [[get(split) for _, get in kept] for split in self.splits]
        return Table(title="Splits", columns=[column for column, _ in kept], rows=rows)

    def _lengths(self) -> Table:
        columns = [
            Column(name="length"), Column(name="split"), Column(name="mean", format=",.1f"),
            Column(name="median", format=",.1f"), Column(name="95 %"), Column(name="max"), Column(name="sum"),
        ]  # fmt: skip
        if self.context is not None:
            columns.append(Column(name=f"over {self.context:,}", help="more tokens than the network takes"))
        rows: list[list[Any]] = []
        for what in dict.fromkeys(what for split in self.splits for what in split.lengths):
            for split in self.splits:
                if found := split.lengths.get(what):
                    row = [what, split.split, found.mean, found.median, found.p95, found.most, found.total]
                    rows.append([*row, found.over] if self.context is not None else row)
        turns = any("tokens a turn" in split.lengths for split in self.splits)
        note = "Tokens are those of `speaker: text`." if turns else ""
        return Table(title="Lengths", columns=columns, rows=rows, note=note)

    def _shares(self) -> Table:
        names = list(dict.fromkeys(name for split in self.splits for name in split.counted))
        what = self.splits[0].counts
        columns = [Column(name=what)]
        for split in self.splits:
            columns += [Column(name=split.split), Column(name="share", format=".1%")]
        rows: list[list[Any]] = []
        for name in names[:MOST_LABELS]:
            row: list[Any] = [name]
            for split in self.splits:
                count, total = split.counted.get(name, 0), sum(split.counted.values())
                row += [count, count / total if total else None]
            rows.append(row)
        note = f"{len(names) - MOST_LABELS:,} more" if len(names) > MOST_LABELS else ""
        return Table(title=f"{what.capitalize()}s", columns=columns, rows=rows, note=note)

    def _speakers(self) -> Table:
        total: dict[str, int] = {}
        for split in self.splits:
            for name, count in split.speakers.items():
                total[name] = total.get(name, 0) + count
        names = sorted(total, key=lambda name: (-total[name], name))
        rows = [[name, *(split.speakers.get(name, 0) for split in self.splits)] for name in names[:MOST_SPEAKERS]]
        note = f"{len(names) - MOST_SPEAKERS:,} more" if len(names) > MOST_SPEAKERS else ""
        columns = [Column(name="speaker"), *(Column(name=split.split) for split in self.splits)]
        return Table(title="Speakers", columns=columns, rows=rows, note=note)


_SHOWN = {
    "group": "dialogue", "number": "turn", "speaker": "speaker", "image": "image", "messages": "messages",
    "task": "task", "prompt": "prompt", "target": "target", "question": "question", "answer": "answer",
    "context": "context", "text": "text", "head": "head", "relation": "relation", "tail": "tail", "label": "label",
    "clip": "clip",
}  # fmt: skip
"""Keys of records that are shown, in their order, and what their columns are called."""


def _first(split: SplitSurvey) -> Table:
    """The first records of a split, long texts cut."""
    keys = [key for key in _SHOWN if any(record.get(key) not in (None, "", (), []) for record in split.first)]
    names = [split.grouped if key == "group" else _SHOWN[key] for key in keys]
    rows: list[list[Any]] = [[_cell(record.get(key)) for key in keys] for record in split.first]
    return Table(title=f"First of {split.split}", columns=[Column(name=name) for name in names], rows=rows)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, list | tuple):
        parts = [f"{part['role']}: {part['content']}" if isinstance(part, dict) else str(part) for part in value]
        value = " | ".join(parts)
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"
