"""What a snapshot's learning gave, as rows and curves: light, so that findings may be declared without torch."""

from __future__ import annotations

from typing import Any

from intarsia.knowledge.evaluation.metrics import Ranking, Rankings
from intarsia.knowledge.learning.results import SnapshotResult
from intarsia.report import Column, Figure, Series

__all__ = [
    "UNCALIBRATED",
    "Ranking",
    "Rankings",
    "SnapshotResult",
    "curves",
    "growth_columns",
    "growth_row",
    "matrix_figures",
]
UNCALIBRATED = "Too few held-out facts were there to calibrate on: take confidences as mere order."


def growth_columns() -> list[Column]:
    """Of the table of snapshots."""
    return [
        Column(name="snapshot"),
        Column(name="facts", format=",d", help="that were learned"),
        Column(name="entities", format=",d", help="by now"),
        Column(name="MRR before", format=".3f", help="on its own test, new rows initialised and nothing learned yet"),
        Column(name="MRR", format=".3f", better="higher", help="over all tests so far, among all entities"),
        Column(name="MRR of the time", format=".3f", better="higher", help="among the entities of each test's time"),
        Column(name="Hits@1", format=".3f", better="higher"),
        Column(name="Hits@10", format=".3f", better="higher"),
        Column(name="epochs", format="d"),
        Column(name="seconds", format=".1f", better="lower", help="of learning, validation included"),
    ]


def growth_row(result: SnapshotResult) -> list[Any]:
    """One snapshot."""
    every, old = result.overall("all"), result.overall("old")
    tested = every.count > 0
    before = result.before["all"].mrr if result.before and result.before["all"].count else None
    return [
        result.name,
        result.facts,
        result.entities,
        before,
        every.mrr if tested else None,
        old.mrr if tested else None,
        every.hits1 if tested else None,
        every.hits10 if tested else None,
        result.epochs,
        result.seconds,
    ]


def curves(results: list[SnapshotResult]) -> list[Figure]:
    """MRR as the graph grows, and what becomes of each snapshot's test; nothing where nothing was tested."""
    tested = [result for result in results if result.overall("all").count]
    if not tested:
        return []
    lines = [
        Series(name=label, x=[r.name for r in tested], y=[r.overall(key).mrr for r in tested])
        for label, key in (("among all entities", "all"), ("among those of the time", "old"))
    ]
    first = Figure(title="MRR over all tests so far", kind="line", x="snapshot", y="MRR", series=lines, format=".3f")
    return [first, matrix_figures([result.tests for result in results], [result.name for result in results])]


def matrix_figures(tests: list[list[Rankings]], names: list[str], evaluator: str = "all") -> Figure:
    """The forgetting curves: a line a test, from the snapshot it came with on."""
    lines = [
        Series(name=f"test {name}", x=names[j:], y=[tests[i][j][evaluator].mrr for i in range(j, len(names))])
        for j, name in enumerate(names)
        if tests[j][j][evaluator].count
    ]
    return Figure(
        title="What becomes of each test", kind="line", x="after learning", y="MRR", series=lines, format=".3f"
    )
