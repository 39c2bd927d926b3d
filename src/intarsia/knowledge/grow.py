"""`knowledge.grow`: learn what is new in a growing graph, and keep what was known."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.evaluated import UNCALIBRATED, SnapshotResult, curves, growth_columns, growth_row
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Cell, Column, Figure, Finding, Table

Method = Literal[
    "distil", "lkge", "lkge-code", "incde", "fastkge", "finetune", "retrain", "snapshot", "mean", "pnn", "cwr",
    "si", "ewc", "emr", "gem",
]  # fmt: skip
Scorer = Literal["auto", "transe", "distmult", "complex", "rotate"]


class GrowConfig(Config):
    method: Method = Field("distil", description="how new facts are learned and old ones kept; lkge: the paper's")
    scorer: Scorer | None = Field(
        None,
        description="what a fact's plausibility is computed by; auto: complex, or on a small first snapshot what its "
        "held-out facts say; unset: the method's (distil: auto)",
    )
    width: int | None = Field(None, ge=2, description="numbers in a vector; unset: 200")
    learning_rate: float | None = Field(None, gt=0, description="of the optimiser; unset: the method's")
    batch_size: int | None = Field(None, ge=1, description="facts (or questions) in a step; unset: the method's")
    epochs: int | None = Field(None, ge=1, description="at most; unset: the method's")
    patience: int | None = Field(
        None, ge=1, description="validations without a gain before it stops; unset: the method's"
    )
    options: dict[str, float] = Field({}, description="settings of the method alone, such as alpha=0.1")
    name: str | None = Field(None, description="name of the new snapshot; unset: that of the file, or its number")
    hold_out: float = Field(
        0.1, ge=0, le=0.5, description="share of facts set aside to choose the epoch by and to test on, where none are"
    )
    skip_bad: bool = Field(False, description="leave out lines that are no facts, instead of stopping at the first")
    relearn: bool = Field(False, description="forget what was learned, and learn all snapshots again")
    history: int = Field(10, ge=1, description="snapshots whose vectors are kept; results are kept of all")
    accelerator: str = Field("cpu", description="torch device to learn on, such as cuda")


class Answered(pydantic.BaseModel):
    """A held-out question with its right answers, and what the graph says: answers with confidences, best first."""

    question: str
    right: list[str]
    said: list[str]
    confidence: list[float]
    rank: float


class Growth(Finding):
    """How a graph grew: what was added, what was learned, and how every test so far is answered.

    The evaluators are those of `knowledge.compare`: ranked among all entities there are by now, and among those there
    were when the test's snapshot came."""

    volatile = frozenset({"seconds"})
    graph: str = ""
    method: str = ""
    scorer: str = ""
    chosen: dict[str, float] = Field(default_factory=dict)
    added: int = 0
    known: int = 0
    calibrated: bool = True
    skipped: list[str] = Field(default_factory=list)
    grown: int = 0
    results: list[SnapshotResult] = Field(default_factory=list)
    answered: list[Answered] = Field(default_factory=list)
    seconds: float = 0.0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        if not self.results or not (every := self.results[-1].overall("all")).count:
            return {}
        return {"mrr": (every.mrr, Column(name="MRR", format=".3f", better="higher"))}

    def tables(self) -> list[Table]:
        tables = []
        if self.results:
            rows = [growth_row(result) for result in self.results]
            note = "MRR is over the tests of all snapshots so far. Ranked among all entities there are by now; 'of the "
            note += "time': among those there were when a test's snapshot came, as in the papers."
            tables.append(Table(title="Snapshot by snapshot", columns=growth_columns(), rows=rows, note=note))
        if self.answered:
            columns = [
                Column(name="question"),
                Column(name="says"),
                Column(name="confidence", format=".0%"),
                Column(name="right"),
                Column(name="rank", format="g", better="lower", help="of the right answer; 1 is first"),
            ]
            rows = []
            for row in self.answered:
                ok = "✓" if row.rank == 1 else ""
                rows.append(
                    [row.question, f"{row.said[0]} {ok}".strip(), row.confidence[0], ", ".join(row.right), row.rank]
                )
            title = "Questions that were held out"
            note = "None of these facts was learned." + ("" if self.calibrated else f" {UNCALIBRATED}")
            tables.append(Table(title=title, columns=columns, rows=rows, note=note))
        if self.skipped:
            rows = [[line] for line in self.skipped]
            tables.append(Table(title="Left out", columns=[Column(name="where and why")], rows=rows))
        return tables

    def figures(self) -> list[Figure]:
        return curves(self.results) if len(self.results) > 1 else []


@technique(
    "knowledge.grow",
    kind="learn",
    family="growing graphs",
    source="Cui et al. 2023 (LKGE); the default: Lacroix et al. 2018 with Li & Hoiem 2016; see `method`",
    needs="facts",
    gives="Growth",
    extra="knowledge",
    in_place=True,
    example={"subject": "python"},
)
def grow(graph: KnowledgeGraph, config: GrowConfig, *, facts: Any = None, seed: int = 0) -> Growth:
    """Learn what is new in a graph of facts, without forgetting and without training again on what is old.

    A graph is a folder. It takes in the facts, as one more snapshot (or several, from a folder of snapshots), and
    learns every snapshot that is not learned yet: new entities and relations get vectors, estimated at once from what
    the facts say and then trained; old ones are kept by the method. Stopped in the middle, it goes on where it was when
    it is called again; a snapshot is in the graph wholly or not at all.

    - GRAPH: the folder of a graph; or `python` (the installed Python's library, in snapshots by version), or a file,
      an archive or a folder of facts, from which a graph of that name is made under `runs`.
    - facts: what is new, for a graph that is there: a file (TSV, CSV, JSON Lines, N-Triples, Turtle, Parquet; head,
      relation, tail), a folder with train, valid and test, or a folder of snapshots; in Python also a list of `Fact`.

    Raises `BadInput` for facts that cannot be read, with file and line, and for a graph that was learned with another
    method or width."""
    from intarsia.knowledge.growing import run

    return run(graph, config, facts, seed)
