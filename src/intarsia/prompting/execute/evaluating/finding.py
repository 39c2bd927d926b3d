"""What an evaluation found: figures with intervals, gates, what changed, the worst answers, and every row."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.measure.quality_parts import Interval
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

WORST = 10
LONGEST = 300  # characters of a text in a table


class Row(pydantic.BaseModel):
    """One record: where it stands, hashes of the record, of the prompt as it was sent and of the whole request; the
    answer and what was wanted; its value by each metric that has one."""

    where: str
    record: str
    prompt: str = ""
    key: str = ""
    group: str | None = None
    given: str = ""
    gold: str | None = None
    answer: str = ""
    probability: float | None = None
    error: str = ""
    values: dict[str, float] = {}


class GateResult(pydantic.BaseModel):
    """A gate, the value it was judged on, and whether it passed."""

    gate: str
    name: str
    limit: float
    value: float
    passed: bool


class EvalFinding(Finding):
    """- metrics: each figure with its 95 % interval; changes: against an earlier result, paired, on `common` records.
    - rows: every record. differing: keys of those whose answer is another one than was kept.
    - confusion: [wanted, answered] counts of `classes`, where a metric is of classes."""

    volatile = frozenset({"tokens", "cost", "notes"})

    metrics: dict[str, Interval]
    changes: dict[str, Interval] = Field(default_factory=dict)
    common: int = 0
    against: str = ""
    gates: list[GateResult] = Field(default_factory=list)
    gate_on: str = "point"
    rows: list[Row]
    labels: list[str] = Field(default_factory=list)
    classes: list[str] = Field(default_factory=list)
    confusion: list[list[int]] = Field(default_factory=list)
    prompt: str = ""
    prompt_version: str = ""
    model: str = ""
    model_fingerprint: str = ""
    tokens: int = 0
    cost: float = 0.0
    differing: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.passed for gate in self.gates)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        """Every metric; more is better."""
        return {name: (value, Column(name=name, format=".3f", better="higher")) for name, value in self.metrics.items()}

    def blocks(self) -> list[Block]:
        """The figures as a table and a chart, then gates and worst answers."""
        return [*self.tables()[:1], *self.figures(), *self.tables()[1:]]

    def tables(self) -> list[Table]:
        """Figures with their intervals, and where there are some: gates, the worst answers."""
        changed = [Column(name="change", format="+.3f", help="paired: the same records, answered by both")]
        columns = [Column(name="metric"), Column(name="value", format=".3f"), *(changed if self.changes else [])]
        rows: list[list[Cell | Interval]] = [
            [name, value, *([self.changes.get(name)] if self.changes else [])] for name, value in self.metrics.items()
        ]
        told = [f"{len(self.rows)} records", *self.notes]
        if self.changes:
            told.append(f"changes against {self.against} on {self.common} records of both")
        tables = [Table(title="Figures", columns=columns, rows=rows, note="; ".join(told))]
        if self.gates:
            names = [Column(name=n) for n in ("gate", "judged on", "passed")]
            judged: list[list[Cell | Interval]] = [
                [g.gate, round(g.value, 6), "yes" if g.passed else "no"] for g in self.gates
            ]
            tables.append(Table(title="Gates", columns=names, rows=judged, note=f"judged on the {_ON[self.gate_on]}"))
        if worst := self.worst():
            columns = [Column(name=n) for n in ("record", "given", "wanted", "answered", "value")]
            tables.append(Table(title="Worst answers", columns=columns, rows=[
                [r.where, cut(r.given), cut(r.gold or "–"), cut(r.answer or r.error), _value(r)] for r in worst
            ]))  # fmt: skip
        return tables

    def figures(self) -> list[Figure]:
        """The metrics as bars, and what was taken for what."""
        names = list(self.metrics)
        if not names:
            return []
        values = [self.metrics[n] for n in names]
        series = Series(name="value", x=names, y=[v[0] for v in values], low=[v[1] for v in values],
                        high=[v[2] for v in values])  # fmt: skip
        marks = [Mark(value=g.limit, text=g.gate) for g in self.gates if g.name in names]
        out = [
            Figure(
                title="Figures with their intervals", kind="bar", y="value", series=[series], format=".3f", marks=marks
            )
        ]
        if self.confusion:
            out.append(
                Figure(
                    title="Wanted and answered", kind="heatmap", x="answered", y="wanted", format=",.0f",
                    matrix=[[float(n) for n in row] for row in self.confusion], row_names=self.classes,
                    column_names=self.classes,
                )
            )  # fmt: skip
        return out

    def worst(self) -> list[Row]:
        """Rows of the lowest values, of those the surest answers first."""
        wrong = [r for r in self.rows if r.values and _value(r) < 1]
        return sorted(wrong, key=lambda r: (_value(r), -(r.probability or 0.0), r.where))[:WORST]


_ON = {"point": "figure", "lower": "end of its interval that is against it"}


def _value(row: Row) -> float:
    return sum(row.values.values()) / len(row.values)


def cut(text: str) -> str:
    """A text for a table."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
