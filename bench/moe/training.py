"""Affinity while a network is trained, with the load beside it: a router that has collapsed looks like affinity."""

from __future__ import annotations

from pathlib import Path

from bench.common import show
from bench.moe.traces import given
from intarsia.moe import affinity, place


def run(folder: Path) -> None:
    """Three checkpoints of two networks, novels and documentation."""
    rows = []
    for model in ("mixtral", "olmoe"):
        for checkpoint in ("early", "mid", "late"):
            trace = given(folder, model, checkpoint, "novels", "docs")
            seen = affinity(trace, devices=4, lags=1, pictures=0).traces[0]
            plan = place(trace, devices=4, goal="crossing")
            even = place(trace, devices=4, goal="crossing", max_load=max(1.001, plan.balanced[-1].load))
            mine, plain, fair = plan.of("plan"), plan.of("contiguous"), even.of("plan")
            rows.append([f"{model} {checkpoint}", f"{seen.mean('bits'):.2f}", f"{seen.mean('entropy'):.2f}",
                         f"{seen.mean('load'):.1f}", f"{plain.crossing:.3f}", f"{mine.crossing:.3f}",
                         f"{mine.load:.2f}", f"{fair.crossing:.3f}", f"{fair.load:.2f}"])  # fmt: skip
    columns = ["", "affinity bits", "load entropy bits", "busiest expert", "contiguous", "plan", "its load",
               "evenest plan", "its load"]  # fmt: skip
    show("Training: affinity and load; share of steps that change one of 4 devices, held out", columns, rows)
