"""The headline table of a run: one row a model, one column a figure, gathered from the findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from intarsia.report import Column, Finding, Table


@dataclass(frozen=True)
class Entry:
    """A finding of a run: the step it comes from, the state it looks at, and the states that was held against."""

    number: int
    technique: str
    on: str
    against: tuple[str, ...]
    file: str
    finding: Finding

    @property
    def title(self) -> str:
        """A heading for its section."""
        return self.finding.title or f"{self.technique} on {self.on}"


def headline(entries: Iterable[Entry], order: Iterable[str] = (), title: str = "") -> Table:
    """One row for each state that was looked at, in the order the run made them (`order`).

    Where two findings give the same figure for one state (a diff against two others), the later column is named for
    what it was held against."""
    entries = list(entries)
    rank = {state: place for place, state in enumerate(order)}
    columns: dict[str, Column] = {}
    rows: dict[tuple[int, str, str], dict[str, Any]] = {}
    for entry in entries:
        for suffix, cells in entry.finding.headlines().items():
            row = rows.setdefault((rank.get(entry.on, len(rank)), entry.on, suffix), {})
            for key, (value, column) in cells.items():
                name, shown = key, column
                if key in row and row[key] != value:
                    against = " vs " + ", ".join(entry.against) if entry.against else f" (step {entry.number})"
                    name, shown = key + against, column.model_copy(update={"name": column.name + against})
                row[name] = value
                columns.setdefault(name, shown)
    references: dict[str, Finding] = {}
    changes: dict[tuple[int, str, str], dict[str, tuple[float, float, float]]] = {}
    for entry in sorted(entries, key=lambda e: rank.get(e.on, len(rank))):
        first = references.setdefault(entry.technique, entry.finding)
        if first is not entry.finding:
            for suffix, gained in entry.finding.gains(first).items():
                changes.setdefault((rank.get(entry.on, len(rank)), entry.on, suffix), {}).update(gained)
    filled = {place: row for place, row in sorted(rows.items(), key=lambda item: item[0][0]) if row}
    return Table(
        title=title,
        columns=[Column(name="model"), *columns.values()],
        rows=[
            [f"{state} ({suffix})" if suffix else state, *(row.get(key) for key in columns)]
            for (_, state, suffix), row in filled.items()
        ],
        changes=[
            {i: changes[place][key] for i, key in enumerate(columns, 1) if key in changes.get(place, {})}
            for place in filled
        ],
    )


class Headline(Finding):
    """The headline table as a finding of its own, so that it prints like any other."""

    shown: Table

    def tables(self) -> list[Table]:
        return [self.shown]
