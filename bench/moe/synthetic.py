"""Chains of known affinity: the placements the paper reports hidden in them; and chains without groups of experts."""

from __future__ import annotations

from bench.common import show
from bench.moe.traces import drawn, flow_of, hidden
from intarsia.moe.placement import Problem, contiguous, crossing, solve

# name -> (experts, layers, devices -> share of steps that change device, as reported)
REPORTED = {
    "Mixtral 8x7B, released solution": (8, 32, {8: 0.715, 4: 0.564}),
    "MoE-64: 25 % less on 32 devices, 40 % on 4": (64, 24, {32: 0.75 * 31 / 32, 4: 0.6 * 3 / 4}),
}


def run(quick: bool) -> dict[str, float]:
    """Chains in which a placement with the reported shares is hidden: is one found that is as good on held-out tokens?
    Then chains whose experts follow each other without groups, which is the harder case for few devices."""
    effort = 200 if quick else 1500
    rows, worst = [], 0.0
    for name, (experts, layers, shares) in REPORTED.items():
        ids, test, planted = hidden(layers, experts, 20_000, shares)
        for devices, theirs in shares.items():
            best = solve(Problem(flow_of(ids, experts), devices), effort=effort)
            flow = flow_of(test, experts)
            held, there = crossing(flow, best.device_of), crossing(flow, planted[devices])
            worst = max(worst, held / there)
            proof = "optimal" if best.proof == "optimal" else f"{best.bound:.3f}"
            rows.append([f"{name}, {experts} experts", str(devices), f"{theirs:.3f}", f"{there:.3f}", f"{held:.3f}",
                         proof, f"{best.seconds:.1f}"])  # fmt: skip
    columns = ["", "devices", "reported", "the hidden one, held out", "ours, held out", "bound", "CPU s"]
    show("Chains with the reported placements hidden in them", columns, rows)
    rows = []
    for experts in (8, 16, 32, 64):
        ids, test = drawn(24, experts, 20_000)
        for devices in (4, 8, 16, 32):
            if devices > experts:
                continue
            best, flow = solve(Problem(flow_of(ids, experts), devices), effort=effort), flow_of(test, experts)
            held, plain = crossing(flow, best.device_of), crossing(flow, contiguous(24, experts, devices))
            rows.append([f"{experts} experts", str(devices), f"{plain:.3f}", f"{best.value:.3f}", f"{held:.3f}",
                         f"{1 - held / plain:.0%}", best.proof if best.proof == "optimal" else f"{best.bound:.3f}",
                         f"{best.seconds:.1f}"])  # fmt: skip
    columns = ["sharpness 2, 24 layers", "devices", "contiguous", "planned on", "held out", "less", "bound", "CPU s"]
    show("Chains without groups", columns, rows)
    return {"found_over_hidden": worst}
