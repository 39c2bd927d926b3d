"""Placement as an integer programme, solved by HiGHS: a proof for small problems, and a peer to be measured by.

`aggregated` counts a pair of experts once, however many tokens go from one to the other. `per_token` is the programme
of the ExFlow repository: a variable for every token and step, and two rows for each of them and every device. Both have
the same optimum on the same tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from intarsia.errors import BadInput
from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.problem import Problem


@dataclass(frozen=True, eq=False)
class Solved:
    """- device_of: [L, E], None where no solution was found in time; value: mean share of tokens that change device.
    - bound: what it cannot go below; optimal: whether that is proved; seconds: of CPU; variables, rows: the size."""

    device_of: Devices | None
    value: float
    bound: float
    optimal: bool
    seconds: float
    variables: int
    rows: int


def aggregated(problem: Problem, seconds: float) -> Solved:
    """Experts on devices (binary), and for every pair with tokens between them whether they share one.

    same[l, a, b] <= 1 - (x[l, a, g] - x[l+1, b, g]) for all g, and every expert shares its device with exactly `slots`
    experts of the next layer, which lifts the bound of the relaxation from 0. Device names are free, so an expert of
    the first layer is never on a device of a greater number than its own."""
    if problem.empty:
        raise BadInput("the integer programme wants a number of experts that the devices divide")
    layers, experts, devices = problem.layers, problem.experts, problem.devices
    at = np.arange(layers * experts * devices).reshape(layers, experts, devices)
    same = at.size + np.arange((layers - 1) * experts * experts).reshape(layers - 1, experts, experts)
    total = at.size + same.size
    build = _Build()
    build.add(at.reshape(-1, devices), 1.0, 1.0, 1.0)
    build.add(at.transpose(0, 2, 1).reshape(-1, experts), 1.0, problem.slots, problem.slots)
    build.add(same.reshape(-1, experts), 1.0, problem.slots, problem.slots)
    build.add(same.transpose(0, 2, 1).reshape(-1, experts), 1.0, problem.slots, problem.slots)
    pair = np.broadcast_to(same[..., None], (*same.shape, devices)).ravel()
    left = np.broadcast_to(at[:-1, :, None], (*same.shape, devices)).ravel()
    right = np.broadcast_to(at[1:, None], (*same.shape, devices)).ravel()
    for sign in (1.0, -1.0):
        build.add(np.stack([pair, left, right], 1), np.array([1.0, sign, -sign]), -np.inf, 1.0)
    upper = np.ones(total)
    upper[at[0][np.arange(devices)[None] > np.arange(experts)[:, None]]] = 0.0
    goal = np.zeros(total)
    goal[same] = -problem.flow
    whole = np.zeros(total)
    whole[: at.size] = 1
    mass = float(problem.flow.sum())
    return _solve(goal, whole, upper, build, seconds, at, mass, problem.layers - 1)


def per_token(ids: NDArray[np.integer], experts: int, devices: int, seconds: float) -> Solved:
    """x[expert, device] binary; moved[token, step] >= |x[from, g] - x[to, g]| for all g; minimise the mean of moved.

    ids: [token, layer] first choices."""
    tokens, layers = ids.shape
    if experts % devices:
        raise BadInput("the programme wants a number of experts that the devices divide")
    at = np.arange(layers * experts * devices).reshape(layers, experts, devices)
    moved = at.size + np.arange(tokens * (layers - 1)).reshape(tokens, layers - 1)
    total = at.size + moved.size
    build = _Build()
    build.add(at.reshape(-1, devices), 1.0, 1.0, 1.0)
    slots = experts // devices
    build.add(at.transpose(0, 2, 1).reshape(-1, experts), 1.0, slots, slots)
    every = np.arange(layers)
    where = at[every[None], ids]  # [token, layer, device]
    step = np.broadcast_to(moved[..., None], (tokens, layers - 1, devices)).ravel()
    left, right = where[:, :-1].ravel(), where[:, 1:].ravel()
    for sign in (1.0, -1.0):
        build.add(np.stack([step, left, right], 1), np.array([1.0, -sign, sign]), 0.0, np.inf)
    goal = np.zeros(total)
    goal[moved] = 1 / moved.size
    return _solve(goal, np.ones(total), np.ones(total), build, seconds, at, 0.0, 1)


class _Build:
    """Rows of a constraint matrix as they come."""

    def __init__(self) -> None:
        self.parts: list[tuple[NDArray, NDArray]] = []
        self.low: list[NDArray] = []
        self.high: list[NDArray] = []

    def add(self, columns: NDArray, values: float | NDArray, low: float, high: float) -> None:
        """One row for each of `columns` [row, column], with the same values in each."""
        self.parts.append((columns, np.broadcast_to(values, columns.shape)))
        self.low.append(np.full(len(columns), low))
        self.high.append(np.full(len(columns), high))

    def constraint(self, total: int) -> LinearConstraint:
        rows, columns, values, start = [], [], [], 0
        for some, worth in self.parts:
            rows.append(np.repeat(np.arange(start, start + len(some)), some.shape[1]))
            columns.append(some.ravel())
            values.append(worth.ravel())
            start += len(some)
        matrix = sparse.csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(start, total)
        )
        return LinearConstraint(matrix, np.concatenate(self.low), np.concatenate(self.high))


def _solve(
    goal: NDArray, whole: NDArray, upper: NDArray, build: _Build, seconds: float, at: NDArray, mass: float, steps: int
) -> Solved:
    constraint = build.constraint(len(goal))
    began = time.process_time()
    found = milp(
        goal, integrality=whole, bounds=Bounds(0.0, upper), constraints=constraint,
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )  # fmt: skip
    spent = time.process_time() - began
    bound = 0.0 if found.mip_dual_bound is None else max(0.0, (mass + float(found.mip_dual_bound)) / steps)
    size = len(goal), constraint.A.shape[0]
    if found.x is None:
        return Solved(None, float("inf"), bound, False, spent, *size)
    rows = found.x[at].argmax(-1)
    return Solved(rows, (mass + float(found.fun)) / steps, bound, found.status == 0, spent, *size)
