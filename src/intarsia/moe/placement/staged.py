"""In stages: nodes before the devices of each, where a step to another node costs more; and groups of experts that the
router chooses among first, which have to stay whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from intarsia.errors import BadInput
from intarsia.moe.placement import bounds
from intarsia.moe.placement.descent import Descent
from intarsia.moe.placement.problem import Problem, cost, crossing
from intarsia.moe.placement.solving import Solution, solve


def solve_staged(problem: Problem, *, effort: int = 400, seed: int = 0) -> tuple[Solution, float]:
    """The placement on nodes and devices, and the bound of the share of steps that change node.

    The solution's value and bound are those of changing device. Raises `BadInput` where a layer's experts do not
    divide by the nodes."""
    if problem.experts % problem.nodes:
        raise BadInput(
            f"{problem.experts} experts cannot stand on {problem.nodes} equal nodes; "
            "take a number of nodes that divides the experts"
        )
    inside = problem.devices // problem.nodes
    share = max(1, effort // (2 * problem.nodes))
    flat = replace(problem, nodes=1)
    outer = solve(replace(flat, devices=problem.nodes), effort=max(1, effort // 2), seed=seed)
    rows = np.empty((problem.layers, problem.experts), np.int64)
    seconds = outer.seconds
    for node in range(problem.nodes):
        held = [np.flatnonzero(row == node) for row in outer.device_of]
        part = solve(_part(flat, held, inside), effort=share, seed=seed)
        seconds += part.seconds
        for layer, experts in enumerate(held):
            rows[layer, experts] = node * inside + part.device_of[layer]
    both = replace(problem, far=max(problem.far, 1.0 + 1e-9))
    if not problem.empty:
        # The stages choose one after the other; what is left to gain from choosing both at once is little, and cheap.
        joint = Descent(both).descend(rows.copy())
        if cost(both, joint) < cost(both, rows):
            rows = joint
    value = crossing(problem.flow, rows)
    bound = min(bounds.lower_bound(flat), value)
    how = f"nodes: {outer.solver}; then devices"
    return Solution(rows, value, bound, "bound", how, seconds), outer.bound


def solve_grouped(problem: Problem, groups: int, *, effort: int = 400, seed: int = 0) -> Solution:
    """The placement that keeps whole the `groups` of experts (equally many in a row are one) that a router chooses
    among before it chooses experts: only such a one can be a permuted checkpoint.

    Raises `BadInput` where neither the devices divide the groups nor the groups the devices."""
    size = problem.experts // groups
    flow = problem.flow.reshape(-1, groups, size, groups, size).sum((2, 4))
    whole = Problem(flow, min(groups, problem.devices), mates=None, load=None)
    if problem.experts % groups or max(groups, problem.devices) % whole.devices:
        raise BadInput(
            f"{problem.devices} devices for a router of {groups} groups of experts: take a number that divides the "
            "groups, or a multiple of it"
        )
    outer = solve(whole, effort=effort, seed=seed)
    rows = np.repeat(outer.device_of, size, axis=1)
    seconds, proof, inside = outer.seconds, outer.proof, problem.devices // whole.devices
    if inside > 1:
        held = [[np.flatnonzero(row == g) for row in rows] for g in range(groups)]
        rows = np.empty_like(rows)
        for group, experts in enumerate(held):
            part = solve(_part(replace(problem, nodes=1), experts, inside), effort=effort, seed=seed)
            seconds, proof = seconds + part.seconds, "bound"
            for layer, some in enumerate(experts):
                rows[layer, some] = group * inside + part.device_of[layer]
    value = crossing(problem.flow, rows)
    bound = value if proof == "optimal" else min(value, bounds.lower_bound(replace(problem, nodes=1)))
    return Solution(rows, value, bound, proof, f"{outer.solver}, groups of experts kept whole", seconds)


def _part(problem: Problem, held: list[np.ndarray], devices: int) -> Problem:
    """The problem of one node: its experts, and the flow between them."""
    flow = np.stack([w[np.ix_(a, b)] for w, a, b in zip(problem.flow, held, held[1:], strict=False)])
    mates = problem.mates
    return replace(
        problem,
        flow=flow,
        devices=devices,
        mates=None if mates is None else np.stack([m[np.ix_(h, h)] for m, h in zip(mates, held, strict=True)]),
        load=None if problem.load is None else np.stack([w[h] for w, h in zip(problem.load, held, strict=True)]),
    )
