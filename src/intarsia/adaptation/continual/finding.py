"""`StreamFinding`: how a stream went."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from intarsia.adaptation.continual import metrics
from intarsia.report import Column, Figure, Finding, Series, Table


class Learned(BaseModel):
    """What came of one task.

    - before: its score right before it was learned; base: that of the model without any block; after: scores of all
      tasks so far, itself last; None: there was nothing to judge by.
    - attention: mean weight of each block on its own held-out prompts, by block, once the stream was learned.
    - routed: share of its test prompts that were taken for it, once the stream was learned."""

    name: str
    judged: str = "exact"
    examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    judging: float = 0.0
    losses: list[float] = Field(default_factory=list)
    base: float | None = None
    before: float | None = None
    after: list[float | None] = Field(default_factory=list)
    attention: dict[str, float] = Field(default_factory=dict)
    routed: float | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class StreamFinding(Finding):
    """Scores in percent after every task, what they come to, and which blocks each task uses."""

    volatile = frozenset({"tasks.seconds", "tasks.cpu_seconds", "tasks.judging"})
    method: str = ""
    tasks: list[Learned] = Field(default_factory=list)
    unseen: dict[str, float] = Field(default_factory=dict)
    unseen_base: dict[str, float] = Field(default_factory=dict)
    single: list[float | None] = Field(default_factory=list)

    @property
    def matrix(self) -> list[list[float | None]]:
        """`R[j][i]`: the score on task i after task j."""
        return [task.after for task in self.tasks]

    @property
    def ap(self) -> float | None:
        """Average performance."""
        return metrics.average_performance(self.matrix)

    @property
    def forgetting(self) -> float | None:
        """F.Ra, the forgetting rate."""
        return metrics.forgetting_rate(self.matrix)

    @property
    def bwt(self) -> float | None:
        """Backward transfer."""
        return metrics.backward_transfer(self.matrix)

    @property
    def fwt(self) -> float | None:
        """Forward transfer against models of one task each; None where these were not given."""
        return metrics.forward_transfer(self.matrix, self.single) if self.single else None

    @property
    def fwt_zero_shot(self) -> float | None:
        """Forward transfer to tasks before they are learned."""
        return metrics.zero_shot_transfer([t.before for t in self.tasks], [t.base for t in self.tasks])

    @property
    def own_weight(self) -> float | None:
        """The least mean weight that a task's own block has on its own prompts."""
        own = [t.attention[t.name] for t in self.tasks if t.name in t.attention]
        return min(own) if own else None

    @property
    def routing(self) -> float | None:
        """Share of test prompts that were taken for the right task, mean over tasks."""
        known = [t.routed for t in self.tasks if t.routed is not None]
        return sum(known) / len(known) if known else None

    def tables(self) -> list[Table]:
        names = [task.name for task in self.tasks]
        columns = [Column(name="after"), *(Column(name=name, format=".1f", better="higher") for name in names)]
        base: list[Any] = ["nothing", *(task.base for task in self.tasks)]
        before: list[Any] = ["right before it", *(task.before for task in self.tasks)]
        rows = [[task.name, *task.after, *[None] * (len(names) - len(task.after))] for task in self.tasks]
        note = "Score in percent, by task. " + ", ".join(f"{t.name}: {t.judged}" for t in self.tasks) + "."
        tables = [self._overall(), Table(title="Scores", columns=columns, rows=[base, before, *rows], note=note)]
        if any(task.attention for task in self.tasks):
            tables.append(self._use())
        if self.unseen:
            columns = [
                Column(name="task"),
                Column(name="with blocks", format=".1f"),
                Column(name="without", format=".1f"),
            ]
            rows = [[name, score, self.unseen_base.get(name)] for name, score in self.unseen.items()]
            tables.append(Table(title="Tasks that were never learned", columns=columns, rows=rows))
        return tables

    def _overall(self) -> Table:
        rows = [
            ["AP", self.ap, "mean score over tasks, at the end"],
            ["F.Ra", self.forgetting, "lost from the best score of each task; lower is better"],
            ["BWT", self.bwt, "change since each task was learned"],
            ["FWT", self.fwt, "gain over a model of the task alone"],
            ["FWT, zero-shot", self.fwt_zero_shot, "what earlier tasks gave before a task was learned"],
            ["least own weight", _percent(self.own_weight), "of a task's own block on its prompts; near 0: starved"],
            ["routing", _percent(self.routing), "test prompts that were taken for their task"],
        ]
        rows = [row for row in rows if row[1] is not None]
        columns = [Column(name="figure"), Column(name="value", format=".2f"), Column(name="meaning")]
        return Table(title=f"{self.method}: {len(self.tasks)} tasks", columns=columns, rows=rows)

    def _use(self) -> Table:
        columns = [
            Column(name="task"), Column(name="own block", format=".0%"), Column(name="most used of the others"),
            Column(name="weight", format=".0%"), Column(name="begun from"), Column(name="CPU seconds", format=".0f"),
        ]  # fmt: skip
        rows: list[list[Any]] = []
        for task in self.tasks:
            others = {name: weight for name, weight in task.attention.items() if name != task.name and weight > 0.005}
            most = max(others, key=others.__getitem__) if others else None
            rows.append(
                [task.name, task.attention.get(task.name), most or "–", others.get(most) if most else None,
                 task.facts.get("start", "–"), task.cpu_seconds]
            )  # fmt: skip
        return Table(title="What each task uses", columns=columns, rows=rows)

    def figures(self) -> list[Figure]:
        names = [task.name for task in self.tasks]
        figures = []
        if len(names) > 1:
            series = [
                Series(name=name, x=names[i:], y=[self.tasks[j].after[i] for j in range(i, len(names))])
                for i, name in enumerate(names)
                if len(self.tasks[i].after) > i
            ]
            figures.append(
                Figure(
                    title="What becomes of each task", kind="line", x="after learning", y="score", series=series,
                    format=".1f",
                )
            )  # fmt: skip
        if any(task.attention for task in self.tasks) and len(names) > 1:
            blocks = list(dict.fromkeys(name for task in self.tasks for name in task.attention))
            figures.append(
                Figure(
                    title="Which blocks a task's prompts use", kind="heatmap", x="block", y="prompts of",
                    matrix=[[task.attention.get(block) for block in blocks] for task in self.tasks],
                    row_names=names, column_names=blocks, format=".2f",
                )
            )  # fmt: skip
        return figures


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
