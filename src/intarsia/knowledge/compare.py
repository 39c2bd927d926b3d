"""`knowledge.compare`: methods on the same growing graph, in the same loop, by the same evaluators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.evaluated import Ranking, SnapshotResult, matrix_figures
from intarsia.knowledge.evaluation.metrics import EVALUATORS, backward_transfer, forgetting, forward_transfer
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Column, Figure, Finding, Series, Table

WORDS = {
    "all": "among all entities there are by now",
    "old": "among the entities of each test's time",
    "official": "of the time, valid facts not filtered (as LKGE's released code)",
}


class CompareConfig(Config):
    methods: list[str] = Field(
        ["distil", "lkge", "finetune", "retrain@distil"],
        description="names of methods; A@B is method A with the settings of B (its scorer, loss and rates)",
    )
    seeds: int = Field(1, ge=1, description="runs of each method, with seeds from the given one on")
    width: int | None = Field(None, ge=2, description="numbers in a vector; unset: each method's")
    learning_rate: float | None = Field(None, gt=0, description="of the optimiser; unset: each method's")
    batch_size: int | None = Field(None, ge=1, description="facts (or questions) in a step; unset: each method's")
    epochs: int | None = Field(None, ge=1, description="at most; unset: each method's")
    patience: int | None = Field(None, ge=1, description="validations without a gain; unset: each method's")
    options: dict[str, float] = Field({}, description="options for those methods that have them, such as alpha=0.1")
    sample: int | None = Field(None, ge=1, description="questions of a test that are ranked; unset: all")
    official: bool = Field(False, description="a column for the evaluator of LKGE's released code, too")
    keep: Path | None = Field(None, description="a folder where finished work is kept, and taken up again after a stop")
    accelerator: str = Field("cpu", description="torch device to learn on, such as cuda")


class Course(pydantic.BaseModel):
    """One run of one method: its snapshots' results."""

    method: str
    seed: int
    results: list[SnapshotResult]

    def overall(self, evaluator: str) -> Ranking:
        """After the last snapshot, over all tests."""
        return self.results[-1].overall(evaluator)

    @property
    def seconds(self) -> float:
        """Of learning, over all snapshots."""
        return sum(result.seconds for result in self.results)

    @property
    def cpu_seconds(self) -> float:
        return sum(result.cpu_seconds for result in self.results)

    def fwt(self, evaluator: str = "all") -> float | None:
        """Forward transfer."""
        return forward_transfer([r.before[evaluator] if r.before else None for r in self.results])

    def bwt(self, evaluator: str = "all") -> float | None:
        """Backward transfer."""
        return backward_transfer([[test[evaluator] for test in result.tests] for result in self.results])

    def forgetting(self) -> tuple[float, float] | None:
        """(drift, interference)."""
        return forgetting([result.tests for result in self.results])


class GrowthComparison(Finding):
    """Methods side by side on one growing graph."""

    graph: str = ""
    methods: list[str] = Field(default_factory=list)
    courses: list[Course] = Field(default_factory=list)
    official: bool = False

    def of(self, method: str) -> list[Course]:
        """The runs of one method."""
        return [course for course in self.courses if course.method == method]

    def evaluators(self) -> list[str]:
        """Those that are shown."""
        return [name for name in EVALUATORS if name != "official" or self.official]

    def tables(self) -> list[Table]:
        tables = [self._quality(name) for name in self.evaluators()]
        return [*tables, self._growth(), self._snapshots()]

    def _quality(self, evaluator: str) -> Table:
        columns = [Column(name="method"), Column(name="MRR", format=".3f", better="higher")]
        columns += [Column(name=f"Hits@{k}", format=".3f", better="higher") for k in (1, 3, 10)]
        rows: list[list[Any]] = []
        for method in self.methods:
            found = [course.overall(evaluator) for course in self.of(method)]
            rows.append([method, *(_cell([getattr(r, n) for r in found]) for n in ("mrr", "hits1", "hits3", "hits10"))])
        return Table(title=f"After the last snapshot, {WORDS[evaluator]}", columns=columns, rows=rows)

    def _growth(self) -> Table:
        columns = [
            Column(name="method"),
            Column(name="FWT", format=".3f", better="higher", help="MRR on new tests before they are learned"),
            Column(name="BWT", format="+.3f", better="higher", help="change of the MRR on earlier tests"),
            Column(name="drift", format=".3f", better="lower", help="lost to vectors that moved"),
            Column(name="interference", format="+.3f", better="lower", help="lost to entities that came later"),
            Column(name="seconds", format=".1f", better="lower", help="of learning, validation included"),
            Column(name="CPU seconds", format=".1f", better="lower"),
        ]
        rows = []
        for method in self.methods:
            runs = self.of(method)
            lost = [course.forgetting() for course in runs]
            rows.append([
                method, _cell([course.fwt() for course in runs]), _cell([course.bwt() for course in runs]),
                *(_cell([pair[i] if pair else None for pair in lost]) for i in (0, 1)),
                _cell([course.seconds for course in runs]), _cell([course.cpu_seconds for course in runs]),
            ])  # fmt: skip
        note = "FWT and BWT among all entities. BWT is minus the sum of drift and interference. "
        note += "A triple is the mean of the runs, and their range."
        return Table(title="Transfer, forgetting and time", columns=columns, rows=rows, note=note)

    def _snapshots(self) -> Table:
        names = [result.name for result in self.courses[0].results]
        columns = [Column(name="method"), *(Column(name=name, format=".3f", better="higher") for name in names)]
        rows: list[list[Any]] = []
        for method in self.methods:
            per = zip(*(course.results for course in self.of(method)), strict=True)
            rows.append([method, *(_cell([_mrr(result, "all") for result in same]) for same in per)])
        return Table(
            title="MRR over all tests so far, after each snapshot, among all entities", columns=columns, rows=rows
        )

    def figures(self) -> list[Figure]:
        names = [result.name for result in self.courses[0].results]
        tested = [result.name for result in self.courses[0].results if _mrr(result, "all") is not None]
        figures = []
        for evaluator in ("all", "old"):
            series = []
            for method in self.methods:
                per = [
                    [result.overall(evaluator).mrr for result in same]
                    for same in zip(*(course.results for course in self.of(method)), strict=True)
                    if _mrr(same[0], evaluator) is not None
                ]
                several = len(self.of(method)) > 1
                series.append(
                    Series(
                        name=method, x=tested, y=[sum(values) / len(values) for values in per],
                        low=[min(values) for values in per] if several else None,
                        high=[max(values) for values in per] if several else None,
                    )
                )  # fmt: skip
            title = f"MRR as the graph grows, {WORDS[evaluator]}"
            figures.append(Figure(title=title, kind="line", x="snapshot", y="MRR", series=series, format=".3f"))
        for method in self.methods if len(names) > 1 else ():
            figure = matrix_figures([result.tests for result in self.of(method)[0].results], names)
            figures.append(figure.model_copy(update={"title": f"{method}: what becomes of each test"}))
        return figures


def _mrr(result: SnapshotResult, evaluator: str) -> float | None:
    """Over all tests so far; None where there are none."""
    every = result.overall(evaluator)
    return every.mrr if every.count else None


def _cell(values: list[float | None]) -> float | tuple[float, float, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return mean if len(known) == 1 else (mean, min(known), max(known))


@technique(
    "knowledge.compare",
    kind="look",
    family="growing graphs",
    source="Cui et al. 2023, section on experiments; evaluators: arXiv 2604.19401",
    needs="facts",
    extra="knowledge",
    example={"subject": "python", "methods": ("distil", "finetune"), "epochs": 2},
)
def compare(graph: KnowledgeGraph, config: CompareConfig, *, seed: int = 0) -> GrowthComparison:
    """Let methods learn the same growing graph, in the same loop, and measure them alike.

    The first table stands twice: ranked among all entities there are by now (what a user gets), and among those there
    were when a test's snapshot came (what the papers report). Forgetting is divided into drift, what is lost because
    vectors moved, and interference, what is lost to entities that came later. What a graph has learned itself plays no
    part.

    - GRAPH: the folder of a graph, `python`, or a folder, an archive or a file of snapshots.

    Methods: `distil`, `lkge`, `lkge-code`, `incde`, `fastkge`, `finetune`, `retrain`, `snapshot`, `mean`, `lan`, `pnn`,
    `cwr`, `si`, `ewc`, `emr`, `gem`. Raises `BadInput` for another, and for a graph without tests."""
    from intarsia.knowledge.comparing import look

    return look(graph, config, seed)
