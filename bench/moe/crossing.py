"""Trained networks: how often tokens change device, on held-out sequences and on text of another kind."""

from __future__ import annotations

from pathlib import Path

from bench.common import show
from bench.moe.traces import given
from intarsia.moe import place


def run(folder: Path) -> dict[str, float]:
    """One plan a network and number of devices, from half of novels and documentation; judged on the other half and on
    Python code, which no network was trained on."""
    rows, load, found = [], [], {}
    for model in ("mixtral", "olmoe"):
        trace = given(folder, model, "late", "novels", "docs")
        code = folder / "traces" / f"{trace.sources[0].path.name.rpartition('.novels')[0]}.code.npz"
        for devices in (2, 4, 8):
            for goal in ("crossing", "rows")[: 1 + (trace.facts.k > 1 and devices == 4)]:
                plan = place(trace, devices=devices, goal=goal, others=[str(code)])
                mine, plain = plan.of("plan"), plan.of("contiguous")
                other, plain_other = plan.of("plan", "code"), plan.of("contiguous", "code")
                rows.append(
                    [f"{model} {devices} {goal}", f"{plain.crossing:.3f}", f"{mine.crossing:.3f}",
                     f"{plain_other.crossing:.3f}", f"{other.crossing:.3f}",
                     f"{plan.planned:.4f}" + (" optimal" if plan.optimal else f" >= {plan.bound:.3f}"),
                     f"{mine.coherent:.2f} ({plain.coherent:.2f})", f"{mine.vanilla:.2f} ({plain.vanilla:.2f})",
                     f"{mine.home:.2f} ({plain.home:.2f})", f"{mine.load:.2f}", f"{plan.seconds:.1f}"]
                )  # fmt: skip
                if devices == 4 and goal == "crossing":
                    found[f"crossing_reduction_{model}"] = 1 - mine.crossing / plain.crossing
                    load += [[f"{model}", f"{b.crossing:.4f}", f"{b.load:.3f}"] for b in plan.balanced]
    columns = ["network, devices, goal", "contiguous", "plan", "code, contiguous", "code, plan", "planned on",
               "rows coherent", "rows vanilla", "rows home", "load", "CPU s"]  # fmt: skip
    show("Share of steps that change device, held out (in brackets: contiguous)", columns, rows)
    show("Load beside crossing, 4 devices, on the text planned from", ["network", "crossing", "load"], load)
    found["crossing_reduction_heldout"] = min(found.values())
    return found
