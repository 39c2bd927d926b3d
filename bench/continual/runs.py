"""Methods on streams, every run kept as it goes, so that the whole goes on after a stop."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.common import show
from bench.continual.streams import TEMPLATE, stream_called
from intarsia.adaptation.continual import ContinualConfig
from intarsia.adaptation.continual.finding import StreamFinding
from intarsia.adaptation.continual.learning import learn
from intarsia.errors import BadInput
from intarsia.models import Model

SETTINGS = {
    "rank": 8, "alpha": 32.0, "layers_from": 20.0, "epochs": 2.0, "learning_rate": 1e-3, "batch_size": 8,
    "max_tokens": 160, "template": TEMPLATE, "judge": "exact",
}  # fmt: skip


def runs(model: Model, stream: str, methods: Sequence[str], seeds: Iterable[int], keep: Path) -> list[StreamFinding]:
    """Every method with every seed; finished ones are read from `keep`."""
    found = []
    for name in methods:
        for seed in seeds:
            place = keep / stream / f"{name}-{seed}"
            done = place / "finding.json"
            settings = {**SETTINGS, **variant(name)}
            if done.is_file():
                finding = StreamFinding.model_validate_json(done.read_text("utf-8"))
                had = finding.provenance.get("settings", {})
                if odd := next((key for key, value in settings.items() if had.get(key) != value), None):
                    raise BadInput(f"{place} was run with {odd} {had.get(odd)}: give another --keep, or remove it")
            else:
                config = ContinualConfig(**{**settings, "keep": place})
                out = learn(model, config, stream_called(stream), seed, trunk_folder=keep / "trunk")
                assert isinstance(out.finding, StreamFinding)
                finding = out.finding.model_copy(update={"method": name})
                place.mkdir(parents=True, exist_ok=True)  # (a method that keeps nothing has not made it)
                done.write_text(finding.to_json(), "utf-8")
            print(f"{stream} {name} seed {seed}: {finding.summary} {seconds(finding):.0f} CPU s", flush=True)
            found.append(finding)
    return found


def variant(name: str) -> dict[str, object]:
    """`transfer+warm=false` is transfer without warm starts, and so on."""
    method, _, how = name.partition("+")
    given: dict[str, object] = {"method": method}
    for word in how.split("+") if how else ():
        key, _, value = word.partition("=")
        given[key] = json.loads(value)
    return given


def seconds(finding: StreamFinding) -> float:
    """CPU seconds of learning, over all tasks."""
    return sum(task.cpu_seconds for task in finding.tasks)


def table(stream: str, findings: list[StreamFinding]) -> None:
    """One row a method; of several seeds the mean, and of AP the deviation."""
    names = list(dict.fromkeys(f.method for f in findings))
    oracle = [f for f in findings if f.method == "oracle"]
    single = [
        statistics.mean(f.matrix[i][i] or 0.0 for f in oracle) for i in range(len(oracle[0].tasks))
    ] if oracle else []  # fmt: skip
    rows = []
    for name in names:
        same = [f.model_copy(update={"single": single}) for f in findings if f.method == name]
        ap = [f.ap or 0.0 for f in same]
        told = f"{statistics.mean(ap):.1f}" + (f" ± {statistics.stdev(ap):.1f}" if len(ap) > 1 else "")
        cells = [_mean([getattr(f, key) for f in same]) for key in ("forgetting", "bwt", "fwt", "fwt_zero_shot")]
        shares = [
            _mean([None if (v := getattr(f, key)) is None else 100 * v for f in same])
            for key in ("own_weight", "routing")
        ]
        judging = statistics.mean(sum(t.judging for t in f.tasks) for f in same)
        cost = [f"{statistics.mean(map(seconds, same)):.0f}", f"{judging:.0f}"]
        rows.append([name, told, *cells, *shares, *cost])
    columns = ["", "AP", "F.Ra", "BWT", "FWT", "FWT zero-shot", "least own %", "routing %", "learning s", "judging s"]
    show(f"{stream}: {', '.join(t.name for t in findings[0].tasks)}", columns, rows)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}" if known else "–"


def figures(findings: list[StreamFinding]) -> dict[str, float]:
    """The named figures, of the runs that are there."""
    out: dict[str, float] = {}
    for name, word in (("transfer", "default"), ("sapt", "sapt"), ("sequential", "seqlora"), ("oracle", "oracle")):
        if same := [f for f in findings if f.method == name]:
            out[f"ap_{word}"] = statistics.mean(f.ap or 0.0 for f in same)
            if name == "transfer":
                out["fra_default"] = statistics.mean(f.forgetting or 0.0 for f in same)
                out["own_block_weight_min"] = min(f.own_weight or 0.0 for f in same)
    return out
