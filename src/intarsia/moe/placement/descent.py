"""Layer by layer: the best row given its neighbours, from greedy to where no step helps.

Given the rows before and after, the best devices of a layer's experts are an assignment of experts to slots, which
`linear_sum_assignment` solves exactly. What couples experts of one layer (used together, load) makes it quadratic;
there, the best exchange of two experts is taken until none helps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.problem import Array, Problem

EPSILON = 1e-12
Row = NDArray[np.int64]


class Descent:
    """Steps on one problem, whose experts must fill all slots (`Problem.padded`)."""

    def __init__(self, problem: Problem, real: int | None = None):
        """`real`: experts that are no filling; the rest is last."""
        self.problem = problem
        self.real = problem.experts if real is None else real
        self.distance = problem.distance
        self.plain = problem.plain
        self.columns = np.repeat(np.arange(problem.devices), problem.slots)
        self._identity = np.eye(problem.devices)

    def gain(self, rows: Devices, layer: int, before: bool = True, after: bool = True) -> Array:
        """[E, device] what a layer's expert saves on a device: minus the cost of the steps from and to it."""
        problem = self.problem
        out = np.zeros((problem.experts, problem.devices))
        closer = self._identity if self.plain else -self.distance
        if before and layer > 0:
            out += (problem.flow[layer - 1].T @ self._identity[rows[layer - 1]]) @ closer
        if after and layer < problem.layers - 1:
            out += (problem.flow[layer] @ self._identity[rows[layer + 1]]) @ closer.T
        return out

    def assign(self, gain: Array) -> Row:
        """[E] devices of the greatest sum of gains, equally many on each."""
        from scipy.optimize import linear_sum_assignment

        profit = gain[:, self.columns]
        if self.real < self.problem.experts:
            # A device may have one empty slot, its last: the others want experts.
            profit = profit.copy()
            profit[self.real :] = -1e6
            profit[self.real :, self.problem.slots - 1 :: self.problem.slots] = 0.0
        rows, columns = linear_sum_assignment(profit, maximize=True)
        out = np.empty(self.problem.experts, np.int64)
        out[rows] = self.columns[columns]
        return out

    def step(self, rows: Devices, layer: int) -> bool:
        """Better one layer in place; whether it got better."""
        gain = self.gain(rows, layer)
        if self.problem.together or self.problem.balance:
            return self._exchange(rows, layer, gain)
        new = self.assign(gain)
        every = np.arange(len(new))
        if gain[every, new].sum() <= gain[every, rows[layer]].sum() + EPSILON:
            return False
        rows[layer] = new
        return True

    def greedy(self, rows: Devices, start: int) -> Devices:
        """Every other layer from layer `start` outwards, each by the neighbour that is placed."""
        for layer in range(start + 1, self.problem.layers):
            rows[layer] = self.assign(self.gain(rows, layer, after=False))
        for layer in range(start - 1, -1, -1):
            rows[layer] = self.assign(self.gain(rows, layer, before=False))
        return rows

    def descend(self, rows: Devices, changed: Iterable[int] | None = None) -> Devices:
        """Sweep until no layer gains. `changed`: only these layers and what they touch can gain."""
        layers = self.problem.layers
        due = np.ones(layers, bool)
        if changed is not None:
            due[:] = False
            for layer in changed:
                due[max(0, layer - 1) : layer + 2] = True
        forward = True
        while due.any():
            for layer in range(layers) if forward else range(layers - 1, -1, -1):
                if due[layer]:
                    due[layer] = False
                    if self.step(rows, layer):
                        due[max(0, layer - 1) : layer + 2] = True
                        due[layer] = bool(self.problem.together or self.problem.balance)
            forward = not forward
        return rows

    def _exchange(self, rows: Devices, layer: int, gain: Array) -> bool:
        """Exchange the two experts that save most, until none does."""
        problem, row = self.problem, rows[layer].copy()
        mates = problem.together * problem.mates[layer] if problem.together and problem.mates is not None else None
        load = problem.load[layer] if problem.balance and problem.load is not None else None
        every, better = np.arange(problem.experts), False
        for _ in range(problem.experts * problem.experts):
            worth = gain if mates is None else gain + mates @ self._identity[row]
            here = worth[every, row]
            there = worth[:, row]
            saved = there + there.T - here[:, None] - here[None]
            if mates is not None:
                saved -= 2 * mates
            if load is not None:
                saved -= problem.balance * self._heavier(row, load)
            saved[row[:, None] == row[None]] = 0.0
            saved[self._two_empty(row)] = -1.0
            at = int(saved.argmax())
            e, f = divmod(at, problem.experts)
            if saved[e, f] <= EPSILON:
                break
            row[e], row[f] = row[f], row[e]
            better = True
        rows[layer] = row
        return better

    def _heavier(self, row: Row, load: Array) -> Array:
        """[E, E] by how much the fullest device's load grows when two experts change places."""
        devices = self.problem.devices
        full = np.bincount(row, load, devices)
        more = load[None] - load[:, None]  # what the device of e gains, and that of f loses
        # Of all other devices the fullest is one of the three fullest: taken in turn, the fuller last.
        rest = np.zeros((devices, devices))
        every = np.arange(devices)
        for d in np.argsort(-full, kind="stable")[:3][::-1]:
            other = (every != d)[:, None] & (every != d)[None]
            rest[other] = full[d]
        mine = full[row]
        new = np.maximum(mine[:, None] + more, mine[None] - more)
        return np.maximum(new, rest[row[:, None], row[None]]) - full.max()

    def _two_empty(self, row: Row) -> NDArray[np.bool_]:
        """[E, E] exchanges that would leave a device with two empty slots."""
        out = np.zeros((len(row), len(row)), bool)
        if self.real < len(row):
            has = np.zeros(self.problem.devices, bool)
            has[row[self.real :]] = True
            filling = np.arange(len(row)) >= self.real
            out |= filling[:, None] & has[row][None] & ~filling[None]
            out |= out.T
        return out
