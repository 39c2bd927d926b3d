"""CPU seconds of an epoch and peak memory, against LKGE's released code on ENTITY's first two snapshots."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from bench.common import show
from intarsia.data import shared_data
from intarsia.errors import BadInput


def run(checkout: Path, epochs: int, own_epochs: int, threads: int) -> dict[str, float]:
    """Both in processes of their own, one after the other, and the ratios."""
    folder = shared_data("lkge")
    if folder is None:
        raise BadInput("the data set 'lkge' is not there: set INTARSIA_DATA to the folder that holds it")
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(folder / "ENTITY.tar.xz") as archive:
            archive.extractall(place, filter="data")
        ours = _process("own", [place, "--epochs", str(own_epochs)], threads)
        theirs = _process("official", [str(checkout), place, "--epochs", str(epochs)], threads)
    rows, out = [], {}
    for i in (0, 1):
        mine = [e for e in ours["epochs"] if e["snapshot"] == i]
        other = [e for e in theirs["epochs"] if e["snapshot"] == i]
        a = {key: statistics.median(e[key] for e in mine) for key in ("train", "valid")}
        b = {key: statistics.median(e[key] for e in other) for key in ("train", "valid")}
        for key in ("train", "valid"):
            ratio = b[key] / a[key]
            rows.append([f"snapshot {i}, {key}", f"{b[key]:.1f}", f"{a[key]:.2f}", f"{ratio:.0f}"])
            out[f"epoch_speedup_official_{i}_{key}"] = ratio
        both = (b["train"] + b["valid"]) / (a["train"] + a["valid"])
        rows.append([f"snapshot {i}, both", f"{sum(b.values()):.1f}", f"{sum(a.values()):.2f}", f"{both:.0f}"])
        out[f"epoch_speedup_official_{i}"] = both
    rows.append(["peak MB", f"{theirs['peak_mb']:.0f}", f"{ours['peak_mb']:.0f}",
                 f"{theirs['peak_mb'] / ours['peak_mb']:.2f}"])  # fmt: skip
    show("CPU seconds of an epoch, LKGE on ENTITY", ["", "released code", "Intarsia", "ratio"], rows)
    # The claim is about both snapshots: the worse of them is reported.
    out["epoch_speedup_official"] = min(out["epoch_speedup_official_0"], out["epoch_speedup_official_1"])
    out["peak_memory_over_official"] = ours["peak_mb"] / theirs["peak_mb"]
    return out


def _process(module: str, words: list[str], threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", f"bench.knowledge.{module}", *words, "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])
