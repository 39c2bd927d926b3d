"""Chains of known affinity: the reductions the paper reports, at the affinity its own figures imply."""

from __future__ import annotations

from bench.common import show
from bench.moe.traces import drawn, flow_of
from intarsia.moe.placement import Problem, contiguous, crossing, solve

# (experts, layers, devices at which the sharpness is set, share there, devices judged, share reported there)
REPORTED = (
    ("Mixtral 8x7B, released solution", 8, 32, 8, 0.715, 4, 0.564),
    ("MoE-64, reported", 64, 24, 32, 0.75 * 31 / 32, 4, 0.6 * 0.75),
)


def run(quick: bool) -> dict[str, float]:
    """For each model of the paper: the sharpness at which our share on the larger number of devices equals the paper's,
    and our share on the smaller at that sharpness, beside the paper's. Then other sizes at one sharpness."""
    rows, found = [], {}
    for name, experts, layers, many, share, few, reported in REPORTED:
        low, high = 0.3, 4.0
        for _ in range(6 if quick else 9):
            sharp = (low + high) / 2
            ids, _ = drawn(layers, experts, 20_000, sharp, test=10)
            value = solve(Problem(flow_of(ids, experts), many), effort=60).value
            low, high = (sharp, high) if value > share else (low, sharp)
        ids, test = drawn(layers, experts, 20_000, sharp)
        for devices, theirs in ((many, share), (few, reported)):
            best = solve(Problem(flow_of(ids, experts), devices), effort=200 if quick else 1500)
            held = crossing(flow_of(test, experts), best.device_of)
            rows.append([f"{name}: {experts} experts, sharpness {sharp:.2f}", str(devices), f"{theirs:.3f}",
                         f"{best.value:.3f}", f"{held:.3f}", f"{best.bound:.3f}", f"{best.seconds:.1f}"])  # fmt: skip
        found[f"synthetic_{experts}_over_reported"] = held / reported
    columns = ["", "devices", "reported", "ours, planned on", "ours, held out", "bound", "CPU s"]
    show("At the affinity that the paper's figures imply", columns, rows)
    rows = []
    for experts in (8, 16, 32, 64):
        ids, test = drawn(24, experts, 20_000)
        for devices in (4, 8, 16, 32):
            if devices > experts:
                continue
            best = solve(Problem(flow_of(ids, experts), devices), effort=200 if quick else 1500)
            held, plain = (
                crossing(flow_of(test, experts), d) for d in (best.device_of, contiguous(24, experts, devices))
            )
            rows.append([f"{experts} experts", str(devices), f"{plain:.3f}", f"{best.value:.3f}", f"{held:.3f}",
                         f"{1 - held / plain:.0%}", best.proof if best.proof == "optimal" else f"{best.bound:.3f}",
                         f"{best.seconds:.1f}"])  # fmt: skip
    columns = ["sharpness 2, 24 layers", "devices", "contiguous", "planned on", "held out", "less", "bound", "CPU s"]
    show("Synthetic chains", columns, rows)
    return found
