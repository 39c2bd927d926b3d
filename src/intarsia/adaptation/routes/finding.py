"""What a ladder comes to: a row a rung, which one to take, and how good that is on test."""

from __future__ import annotations

from typing import Any, ClassVar

import pydantic
from pydantic import Field

from intarsia.measure.quality_parts import Interval
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

NAMES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}


class Step(pydantic.BaseModel):
    """One rung.

    - state: `done`, `out of time`, `not possible` (with the reason in `note`).
    - dev: figures with their 95 % intervals over groups. answers: label numbers of dev, for paired comparisons.
    - perplexity: of general text with the changed network; None where it is as it was.
    - bytes: what has to be kept beside the model. facts: what was chosen or counted inside."""

    name: str
    what: str
    access: str
    state: str = "done"
    note: str = ""
    dev: dict[str, Interval] = {}
    answers: list[int] = []
    perplexity: Interval | None = None
    bytes: int = 0
    facts: dict[str, Any] = {}


class RouteFinding(Finding):
    """- steps: the rungs that were climbed, in order; not_climbed: those above. metric, target: what counted.
    - minutes, latency: by rung: minutes to learn it and choose on dev, as if it were alone; milliseconds a record.
    - judging: by rung, minutes to judge it on dev and on general text. take, why: the rung to take; test: its figures
      on test. general, general_name: perplexity of the model as it is, and on what. folder: where rungs are kept.
    - floor: figures of always giving the most frequent label of train."""

    volatile: ClassVar[frozenset[str]] = frozenset(
        {"minutes", "judging", "latency", "folder", "summary", "take", "why", "test", "test_records"}
    )

    steps: list[Step] = Field(default_factory=list)
    not_climbed: list[str] = Field(default_factory=list)
    metric: str = "weighted_f1"
    target: float | None = None
    records: dict[str, int] = Field(default_factory=dict)
    floor: dict[str, float] = Field(default_factory=dict)
    general: Interval | None = None
    general_name: str = ""
    minutes: dict[str, float] = Field(default_factory=dict)
    judging: dict[str, float] = Field(default_factory=dict)
    latency: dict[str, float] = Field(default_factory=dict)
    take: str = ""
    why: str = ""
    test: dict[str, Interval] = Field(default_factory=dict)
    test_records: int = 0
    folder: str = ""

    def step(self, name: str) -> Step | None:
        """A rung by its name."""
        return next((step for step in self.steps if step.name == name), None)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        values = [step.dev[self.metric] for step in self.steps if step.state == "done"]
        column = Column(name=f"{NAMES[self.metric]} on dev, best rung", format=".1%", better="higher")
        return {f"dev_{self.metric}": (max(values), column)} if values else {}

    def tables(self) -> list[Table]:
        return [self._ladder(), *([self._test()] if self.test else []), self._inside()]

    def _ladder(self) -> Table:
        others = [name for name in NAMES if name != self.metric]
        columns = [
            Column(name="rung"), Column(name="needs"),
            Column(name=NAMES[self.metric], format=".1%", better="higher", help="on dev, with its 95 % interval"),
            *(Column(name=NAMES[name], format=".1%", better="higher") for name in others),
            Column(name="perplexity", format=".2f", better="lower", help=f"of {self.general_name}, after"),
            Column(name="a record", unit="ms", format=".1f", better="lower", help="labelled one by one"),
            Column(name="on disk", format="bytes", better="lower", help="beside the model"),
            Column(name="spent", unit="min", format=".2f", better="lower", help="to learn it, as if it were alone"),
            Column(name=""),
        ]  # fmt: skip
        rows: list[list[Any]] = []
        if self.floor:
            rows.append(
                ["always the most frequent label", "none", self.floor[self.metric], *(self.floor[n] for n in others),
                 self.general[0] if self.general else None, None, None, None, ""]
            )  # fmt: skip
        for step in self.steps:
            done = step.state == "done"
            figures = [step.dev[name] if done and name == self.metric else step.dev[name][0] if done else None
                       for name in (self.metric, *others)]  # fmt: skip
            unchanged = self.general[0] if self.general is not None else None
            after = step.perplexity[0] if step.perplexity is not None else unchanged
            rows.append(
                [step.name, step.access, *figures, after if done else None, self.latency.get(step.name),
                 step.bytes if done else None, self.minutes.get(step.name),
                 "take this" if step.name == self.take else "" if done else step.state]
            )  # fmt: skip
        rows += [[name, None, None, None, None, None, None, None, None, "not climbed"] for name in self.not_climbed]
        counts = ", ".join(f"{count:,} of {name}" for name, count in self.records.items())
        note = f"Records: {counts}. Rungs and what is inside them were chosen on dev; only test is a judge."
        if self.general is not None:
            note += f" Perplexity is of {self.general_name}; the model as it is has {self.general[0]:.2f}."
        if self.folder:
            note += f" Kept in {self.folder}."
        return Table(title="The ladder", columns=columns, rows=rows, note=note)

    def _test(self) -> Table:
        columns = [
            Column(name="figure"), Column(name=self.take, format=".1%", better="higher", help="95 % interval")
        ]  # fmt: skip
        rows: list[list[Any]] = [[NAMES[name], value] for name, value in self.test.items()]
        return Table(title=f"On test, once: {self.test_records:,} records", columns=columns, rows=rows)

    def _inside(self) -> Table:
        rows: list[list[Any]] = [
            [step.name, step.what, step.note or ", ".join(f"{k} {_short(v)}" for k, v in step.facts.items())]
            for step in self.steps
        ]
        return Table(title="What each rung is", columns=[Column(name="rung"), Column(name="what"), Column(name="how")],
                     rows=rows)  # fmt: skip

    def figures(self) -> list[Figure]:
        done = [step for step in self.steps if step.state == "done" and step.name in self.minutes]
        if not done:
            return []
        values = [step.dev[self.metric] for step in done]
        series = Series(
            name="rungs", x=[max(1e-3, self.minutes[step.name]) for step in done], y=[v[0] for v in values],
            low=[v[1] for v in values], high=[v[2] for v in values], labels=[step.name for step in done],
        )  # fmt: skip
        marks = [Mark(value=self.target, text="target")] if self.target is not None else []
        if self.floor:
            marks.append(Mark(value=self.floor[self.metric], text="always the most frequent label"))
        return [
            Figure(
                title="Quality and what it costs to learn", kind="scatter", x="minutes to learn",
                y=f"{NAMES[self.metric]} on dev", series=[series], marks=marks, log_x=True, format=".3f",
            )
        ]  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
