"""The same problem for every solver: ours, integer programmes, the released code's formulation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.common import show
from bench.moe.traces import drawn, flow_of, given
from intarsia.moe.placement import Problem, contiguous, crossing, solve
from intarsia.moe.placement.baselines import greedy
from intarsia.moe.placement.programme import aggregated, per_token
from intarsia.moe.placement.search import search


@dataclass(frozen=True)
class Instance:
    name: str
    ids: NDArray[np.int64]
    experts: int
    devices: int


def run(folder: Path, quick: bool) -> dict[str, float]:
    """CPU seconds and share of steps that change device, on the flow of all tokens; `per token` gets 1,000 of them (as
    the released code begins) and a minute."""
    limit = 15.0 if quick else 60.0
    late = given(folder, "mixtral", "late", "novels", "docs").split()[0]
    mixtral = late.whole()[:, :, 0].astype(np.int64)
    instances = [
        Instance("synthetic, Mixtral shape", drawn(32, 8, 5000)[0], 8, 4),
        Instance("synthetic, 12 layers", drawn(12, 8, 5000)[0], 8, 4),
        Instance("mixtral late", mixtral, 16, 4),
        Instance("mixtral late", mixtral, 16, 2),
        Instance("synthetic, 24 layers", drawn(24, 16, 5000)[0], 16, 16),
        Instance("synthetic, 24 layers", drawn(24, 16, 20_000)[0], 16, 4),
        Instance("synthetic, 24 layers", drawn(24, 32, 5000)[0], 32, 8),
        Instance("synthetic, 32 layers", drawn(32, 64, 20_000)[0], 64, 16),
    ]
    rows, speedups, gaps, found = [], [], [0.0], {}
    for i, instance in enumerate(instances):
        flow = flow_of(instance.ids, instance.experts)
        problem = Problem(flow, instance.devices)
        plain = crossing(flow, contiguous(problem.layers, problem.experts, problem.devices))
        begun = time.process_time()
        pass_ = crossing(flow, greedy(problem))
        greedy_ms = 1e3 * (time.process_time() - begun)
        best = solve(problem, effort=1500)
        if best.solver.startswith("Viterbi"):  # what search would give, if it were left to that
            *_, (_, _, value) = search(problem, problem.experts, 0, 1500)
            gaps.append(value / (problem.layers - 1) - best.value)
        cells = [f"{instance.name}, {instance.experts} on {instance.devices}", f"{plain:.4f}",
                 f"{pass_:.4f} ({greedy_ms:.0f} ms)", f"{best.value:.4f} ({best.seconds:.2f} s)",
                 "optimal" if best.proof == "optimal" else f"{best.bound:.3f}"]  # fmt: skip
        if i < 3:  # the programmes' sizes where they give anything in a minute
            some = np.random.default_rng(0).permutation(len(instance.ids))[:1000]
            token = per_token(instance.ids[some], instance.experts, instance.devices, limit)
            pairs = aggregated(problem, limit)
            value = np.inf if token.device_of is None else crossing(flow, token.device_of)
            quick_one = _first_as_good(problem, value)
            speedups.append(token.seconds / quick_one)
            cells += [f"{value:.4f} ({token.seconds:.0f} s)",
                      f"{pairs.value:.4f} >= {pairs.bound:.3f} ({pairs.seconds:.0f} s)",
                      f"{speedups[-1]:.0f}"]  # fmt: skip
        else:
            cells += ["", "", ""]
        rows.append(cells)
        if i == 0:
            found["mixtral_shape_seconds"] = best.seconds
    columns = ["experts on devices", "contiguous", "greedy", "ours", "bound", "per token, HiGHS", "aggregated, HiGHS",
               "ours is faster by"]  # fmt: skip
    show("Share of steps that change device, and CPU seconds", columns, rows)
    return found | {"solver_speedup_per_token": min(speedups), "gap_to_optimum_max": max(gaps)}


def _first_as_good(problem: Problem, value: float) -> float:
    """CPU seconds until ours is at least as good."""
    for effort in (1, 10, 100, 1500):
        found = solve(problem, effort=effort)
        if found.value <= value + 1e-12:
            return found.seconds
    return float("inf")
