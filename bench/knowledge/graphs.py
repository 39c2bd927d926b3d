"""Methods on the benchmark graphs, every run kept as it goes, so that the whole goes on after a stop."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.common import show
from bench.knowledge.published import PUBLISHED
from intarsia.data import read_snapshots, shared_data
from intarsia.errors import BadInput
from intarsia.knowledge.compare import CompareConfig, Course, GrowthComparison
from intarsia.knowledge.comparing import course, method_of
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.methods import method_called

DEFAULT = "distil"
# What LKGE's authors searched: learning rates 1e-4, 5e-4 and 1e-3; alpha and beta of 0.01, 0.1 and 1. Patience: the
# estimated vectors of new rows start so near that a rate of 1e-4 stops within three epochs.
LKGE: dict[str, dict[str, float]] = {
    "ENTITY": {"learning_rate": 1e-3, "patience": 10},
    "RELATION": {"learning_rate": 1e-4, "patience": 10},
    "FACT": {"learning_rate": 1e-4, "patience": 10},
    "HYBRID": {"learning_rate": 1e-3, "patience": 10},
}
SMALL = {"learning_rate": 1e-3, "batch_size": 256, "patience": 10}  # of the margin losses on WORLD's few facts
OPTIONS: dict[str, dict[str, float]] = {"FACT": {"beta": 1.0}}  # of LKGE, as its paper has it


def tuned(data: str, method: str) -> CompareConfig:
    """The settings of a method on a graph, where they are not its own."""
    given: dict[str, Any] = {"options": OPTIONS.get(data, {}) if method.startswith("lkge") else {}}
    if method == "lkge":
        given |= LKGE.get(data, {})
    if method == "finetune":
        given |= {"learning_rate": 1e-3}  # of the same search
    if data == "WORLD" and method_called(method.rpartition("@")[2]).settings.loss == "margin":
        given |= SMALL
    return CompareConfig(methods=[method], **given)


def graph_called(name: str) -> GrowingGraph:
    """A benchmark graph, from the shared data."""
    folder = shared_data("lkge")
    if folder is None:
        raise BadInput("the data set 'lkge' is not there: set INTARSIA_DATA to the folder that holds it")
    return GrowingGraph.of(read_snapshots(folder / f"{name}.tar.xz"))


def courses(data: str, methods: Sequence[str], seeds: Iterable[int], keep: Path) -> list[Course]:
    """Every method with every seed; finished work is read from `keep`."""
    graph = graph_called(data)
    found = []
    for name in methods:
        method, settings = method_of(name, tuned(data, name))
        for seed in seeds:
            run = course(graph, method, settings, seed, name=name, keep=keep / data)
            every = {e: run.overall(e).mrr for e in ("old", "all", "official")}
            told = ", ".join(f"{e} {mrr:.3f}" for e, mrr in every.items())
            print(f"{data} {name} seed {seed}: {told}; {run.cpu_seconds:.0f} CPU seconds", flush=True)
            found.append(run)
    return found


def tables(data: str, runs: list[Course]) -> None:
    """Both candidate sets, the official filter beside the published figures, and forgetting."""
    names = list(dict.fromkeys(run.method for run in runs))
    found = GrowthComparison(methods=names, courses=runs)
    for evaluator, title in (
        ("old", "old candidates, correct filter"),
        ("all", "all candidates, correct filter"),
        ("official", "official filter and candidates"),
    ):
        columns = ["", "MRR", "Hits@1", "Hits@3", "Hits@10"]
        if evaluator == "official":
            columns += ["published", "Hits@1", "Hits@10"]
        rows = []
        for name in names:
            same = found.of(name)
            every = [run.overall(evaluator) for run in same]
            cells = [_several([getattr(r, key) for r in every]) for key in ("mrr", "hits1", "hits3", "hits10")]
            if evaluator == "official":
                row = PUBLISHED.get(data, {}).get(name.partition("@")[0], (None, None, None))
                cells += ["–" if value is None else f"{value:.3f}" for value in row]
            rows.append([name, *cells])
        show(f"{data} after its last snapshot, {title}", columns, rows)
    count = len(runs[0].results)
    columns = ["", *(f"{word} {j}" for word in ("old", "all") for j in range(count))]
    rows = []
    for name in names:
        last = [run.results[-1].tests for run in found.of(name)]
        each = [[tests[j][key].mrr for tests in last] for key in ("old", "all") for j in range(count)]
        rows.append([name, *(f"{statistics.mean(values):.3f}" for values in each)])
    show(f"{data}: MRR on each snapshot's test after the last, old and all candidates", columns, rows)
    rows = []
    for name in names:
        same = found.of(name)
        lost = [run.forgetting() or (0.0, 0.0) for run in same]
        rows.append([
            name, *(f"{statistics.mean(values):.3f}" for values in (
                [run.fwt() or 0.0 for run in same], [run.bwt() or 0.0 for run in same],
                [pair[0] for pair in lost], [pair[1] for pair in lost])),
            f"{statistics.mean(run.cpu_seconds for run in same):.0f}",
            f"{statistics.mean(growing_seconds(run) for run in same):.0f}",
            str(sum(result.epochs for result in same[0].results)),
        ])  # fmt: skip
    columns = ["", "FWT", "BWT", "drift", "interference", "CPU s", "after 0", "epochs"]
    show(f"{data}: transfer, forgetting and learning time (validation included)", columns, rows)


def _several(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def growing_seconds(run: Course) -> float:
    """CPU seconds of learning what came after the first snapshot."""
    return sum(result.cpu_seconds for result in run.results[1:])


def figures(runs: list[Course]) -> dict[str, float]:
    """The named figures, of the runs on ENTITY that are there."""
    out: dict[str, float] = {}
    by = {name: [run for run in runs if run.method == name] for name in ("lkge", DEFAULT, f"retrain@{DEFAULT}")}

    def mean(name: str, evaluator: str) -> float:
        return statistics.mean(run.overall(evaluator).mrr for run in by[name])

    for name, word in (("lkge", "lkge"), (DEFAULT, "default")):
        if by[name]:
            out[f"entity_mrr_{word}"] = mean(name, "official")
            out[f"entity_mrr_{word}_old"], out[f"entity_mrr_{word}_all"] = mean(name, "old"), mean(name, "all")
    again = f"retrain@{DEFAULT}"
    if by[again] and by[DEFAULT]:
        out["grow_minus_retrain_mrr"] = mean(DEFAULT, "all") - mean(again, "all")
        ours, theirs = (statistics.mean(map(growing_seconds, by[name])) for name in (DEFAULT, again))
        out["grow_over_retrain_time"] = ours / theirs
    return out
