"""The headline table of a run: one row a model, one column a figure, gathered from the findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from intarsia.report import Column, Finding, Table
from intarsia.report.change import change
from intarsia.report.format import parts as parts_of


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

    Where findings were held against different states (a diff against two others), the columns say which."""
    entries = list(entries)
    rank = {state: place for place, state in enumerate(order)}

    def place_of(entry: Entry, suffix: str) -> tuple[int, str, str]:
        return rank.get(entry.on, len(rank)), entry.on, suffix

    columns: dict[str, Column] = {}
    rows: dict[tuple[int, str, str], dict[str, Any]] = {}
    held: dict[str, set[tuple[str, ...]]] = {}
    for entry in entries:
        if entry.against:
            for key in entry.finding.headline():
                held.setdefault(key, set()).add(entry.against)
    for entry in entries:
        for suffix, cells in entry.finding.headlines().items():
            row = rows.setdefault(place_of(entry, suffix), {})
            for key, (value, column) in cells.items():
                name, shown = key, column
                if (len(held.get(key, ())) > 1 and entry.against) or (key in row and row[key] != value):
                    against = " vs " + ", ".join(entry.against) if entry.against else f" (step {entry.number})"
                    name, shown = key + against, column.model_copy(update={"name": column.name + against})
                row[name] = value
                columns.setdefault(name, shown)
    references: dict[str, Finding] = {}
    changes: dict[tuple[int, str, str], dict[str, tuple[float, float, float]]] = {}
    for entry in sorted(entries, key=lambda e: place_of(e, "")[0]):
        first = references.setdefault(entry.technique, entry.finding)
        if first is not entry.finding:
            for suffix, gained in entry.finding.gains(first).items():
                changes.setdefault(place_of(entry, suffix), {}).update(gained)
    filled = {place: row for place, row in sorted(rows.items(), key=lambda item: item[0][0]) if row}
    # What the first row has too can be compared at a glance, so it comes first.
    reference = next(iter(filled.values()), {})
    columns = dict(sorted(columns.items(), key=lambda item: item[0] not in reference))
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


def story(table: Table) -> str:
    """The table in a few sentences: each row's figures, and how they moved against the first row."""
    if not table.rows:
        return ""
    first, told = table.rows[0], []
    for at, row in enumerate(table.rows):
        parts = []
        for i, column in enumerate(table.columns[1:], start=1):
            if row[i] is None:
                continue
            value = parts_of(row[i], column)[0] + (f" {column.unit}" if column.unit else "")
            paired = table.changes[at].get(i) if at < len(table.changes) else None
            moved = change(row[i], first[i], column, paired) if at and first[i] is not None else None
            sure = ", within error" if moved and moved.verdict == "unclear" else ""
            parts.append(f"{column.name} {value}" + (f" ({moved.text}{sure})" if moved else ""))
        if parts:
            told.append(f"{row[0]}: {', '.join(parts)}.")
    return " ".join(told)


class Headline(Finding):
    """The headline table as a finding of its own, so that it prints like any other."""

    shown: Table

    def tables(self) -> list[Table]:
        return [self.shown]
