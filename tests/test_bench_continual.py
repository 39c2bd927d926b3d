"""The benchmark of continual tuning: its streams are the published data, its table is what the runs gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.continual import runs, streams
from bench.continual.__main__ import METHODS
from intarsia.adaptation.continual.finding import Learned, StreamFinding
from intarsia.adaptation.continual.methods import METHODS as KNOWN
from intarsia.data import shared_data
from intarsia.errors import BadInput

needs_data = pytest.mark.skipif(shared_data("continual") is None, reason="the data set 'continual' is not there")


def finding(method: str, matrix: list[list[float]]) -> StreamFinding:
    tasks = [Learned(name=f"t{i}", after=row, attention={"t0": 0.6, f"t{i}": 0.4}) for i, row in enumerate(matrix)]
    settings = {**runs.SETTINGS, **runs.variant(method)}
    return StreamFinding(method=method, tasks=tasks, provenance={"settings": settings})


def test_settings_follow_a_method_after_a_plus():
    assert runs.variant("transfer+warm=false+epochs=4") == {"method": "transfer", "warm": False, "epochs": 4}
    assert set(METHODS) <= set(KNOWN)


def test_figures_are_those_of_the_runs():
    found = [
        finding("transfer", [[80], [80, 60]]),
        finding("sequential", [[80], [40, 60]]),
        finding("oracle", [[70], [70, 50]]),
    ]
    assert runs.figures(found) == {
        "ap_default": 70, "fra_default": 0, "own_block_weight_min": 0.4, "ap_seqlora": 50, "ap_oracle": 60,
    }  # fmt: skip


def test_a_finished_run_is_read_and_one_with_other_settings_refused(tmp_path: Path):
    place = tmp_path / "mini3" / "transfer-0"
    place.mkdir(parents=True)
    kept = finding("transfer", [[80], [80, 60]])
    (place / "finding.json").write_text(kept.to_json())
    assert runs.runs(None, "mini3", ["transfer"], range(1), tmp_path)[0].ap == 70
    said = json.loads(kept.to_json())
    said["provenance"]["settings"]["rank"] = 4
    (place / "finding.json").write_text(json.dumps(said))
    with pytest.raises(BadInput, match="was run with rank 4"):
        runs.runs(None, "mini3", ["transfer"], range(1), tmp_path)


@needs_data
def test_streams_are_the_published_tasks_asked_as_published():
    stream = streams.stream_called("mini3")
    assert list(dict.fromkeys(e.task for e in stream)) == ["emotion", "sst2", "agnews"]
    sizes = [sum(e.task == "sst2" and e.split == split for e in stream) for split in ("train", "dev", "test")]
    assert sizes == [128, 50, 64]
    first = stream[0]
    assert first.instruction.startswith("Definition: ") and first.instruction.endswith("example -")
    assert first.input.startswith("Input: ") and first.target
    back = [e.task for e in streams.stream_called("mini3-back")]
    assert list(dict.fromkeys(back)) == ["agnews", "sst2", "emotion"]
    assert len(streams.tasks_in("superni_order1")) == len(streams.tasks_in("long_order2")) == 15
    shared = streams.examples_of("long", "agnews", {"train": 2, "dev": 0, "test": 0}, generic=True)
    assert "Choose one from the option" in shared[0].instruction
