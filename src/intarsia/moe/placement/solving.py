"""`solve`: the best placement that can be found, how far from the optimum it can be at most, and why that is known."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from intarsia.moe.placement import bounds, viterbi
from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.descent import Descent
from intarsia.moe.placement.placement import contiguous
from intarsia.moe.placement.problem import Problem, crossing, of_experts, tidy
from intarsia.moe.placement.search import search
from intarsia.progress import tell

Proof = Literal["optimal", "bound"]
WORK = 2.5e9  # steps of an exact search that are a matter of seconds


@dataclass(frozen=True, eq=False)
class Solution:
    """- device_of: [L, E]; value: share of (token, step) that change device, on the flow it was made for.
    - bound: what that share cannot go below; proof: `optimal` where value is the optimum, else `bound`.
    - solver: how it was found, in words; seconds: of CPU."""

    device_of: Devices
    value: float
    bound: float
    proof: Proof
    solver: str
    seconds: float

    @property
    def gap(self) -> float:
        """By how much the optimum can be lower at most."""
        return max(0.0, self.value - self.bound)


def solve(
    problem: Problem, *, effort: int = 400, seed: int = 0, first: tuple[Devices, ...] = (), bounded: bool = True
) -> Solution:
    """Place the experts.

    - effort: rounds of search where the optimum cannot be had outright.
    - first: placements to begin from. bounded: False: no bound is computed, and it is 0.

    One expert a device: the optimum by one assignment a step. Few balanced partitions (up to 6,435 of two devices):
    the optimum by Viterbi over all of them. Else search, with a bound."""
    began = time.process_time()
    if problem.devices == 1:
        found = np.zeros((problem.layers, problem.experts), np.int64)
        return Solution(found, 0.0, 0.0, "optimal", "one device", time.process_time() - began)
    exact = exactly(problem)
    if exact is not None:
        rows, how = exact
        value = crossing(problem.flow, rows)
        # With other goals beside it the optimum is that of the sum, and the share alone may be lower elsewhere.
        bound = value if problem.plain else bounds.lower_bound(problem) if bounded else 0.0
        proof: Proof = "optimal"
    else:
        padded = problem.padded()
        firsts = tuple(_filled(problem, rows) for rows in first)
        rows = contiguous(padded.layers, padded.experts, padded.devices)
        for done, best, value in search(padded, problem.experts, seed, effort, firsts):
            tell("placing experts", done, effort, cost=value)
            rows = best
        tell("placing experts", effort, effort, finished=True)
        rows, how = of_experts(rows, problem.experts), "search"
        value = crossing(problem.flow, rows)
        bound = bounds.lower_bound(problem) if bounded else 0.0
        proof = "optimal" if problem.plain and value <= bound + 1e-9 else "bound"
    named = tidy(rows, problem.devices) if problem.nodes == 1 else rows
    return Solution(named, value, min(bound, value), proof, how, time.process_time() - began)


def exactly(problem: Problem) -> tuple[Devices, str] | None:
    """The optimum and how it was had, where that takes seconds; else None."""
    if not (problem.nodes == 1 or problem.far == 1.0) or problem.empty:
        return None
    if problem.slots == 1:
        # One expert a device: every layer has one partition; load is what it is, and no two experts are together.
        rows = contiguous(problem.layers, problem.experts, problem.devices)
        return Descent(replace(problem, balance=0.0, together=0.0)).greedy(rows, 0), "assignment"
    states = viterbi.count(problem.experts, problem.devices)
    orders = math.factorial(problem.devices) if problem.devices > 2 else 1
    if problem.devices > viterbi.FEW or states > bounds.PAIR_STATES:
        return None
    if states * states * orders * problem.devices * len(problem.flow) > WORK:
        return None
    return viterbi.exact(problem), "Viterbi over all partitions"


def _filled(problem: Problem, rows: Devices) -> Devices:
    """A placement with filling in the slots that it leaves empty."""
    if not problem.empty:
        return rows.copy()
    out = np.empty((problem.layers, problem.experts + problem.empty), np.int64)
    out[:, : problem.experts] = rows
    for row in out:
        held = np.bincount(row[: problem.experts], minlength=problem.devices)
        row[problem.experts :] = np.repeat(np.arange(problem.devices), problem.slots - held)
    return out
