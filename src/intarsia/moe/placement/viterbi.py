"""The best way through the layers, where every layer has a list of partitions to choose from.

With all balanced partitions in the lists it is the optimum; with a pool of good ones it joins the best parts of
different solutions. Blocks of a partition have no names: two partitions meet by the matching of their blocks that keeps
most tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.problem import Array, Problem, layer_cost

FEW = 5  # up to so many devices all their orders are tried at once
ROOM = 1 << 25  # numbers held at once
Rows = NDArray[np.int64]


def count(experts: int, devices: int) -> int:
    """How many partitions of experts into equal unnamed blocks there are."""
    size = experts // devices
    return math.factorial(experts) // (math.factorial(size) ** devices * math.factorial(devices))


def partitions(experts: int, devices: int) -> Rows:
    """[partition, expert] all of them, each with its blocks numbered in the order of their first experts."""
    size = experts // devices
    out = np.empty((count(experts, devices), experts), np.int64)
    row = np.full(experts, -1)
    at = 0

    def fill(block: int) -> None:
        nonlocal at
        if block == devices:
            out[at] = row
            at += 1
            return
        free = np.flatnonzero(row < 0)
        row[free[0]] = block
        for rest in itertools.combinations(free[1:].tolist(), size - 1):
            row[list(rest)] = block
            fill(block + 1)
            row[list(rest)] = -1
        row[free[0]] = -1

    fill(0)
    return out


def kept(flow: Array, left: Rows, right: Rows, devices: int) -> Array:
    """[S, T] share of tokens that stay between two layers, for every pair of partitions under the best matching of
    their blocks. `flow`: [E, E]; left, right: [S, E], [T, E]."""
    one = np.eye(devices)
    if devices == 2:
        # Two blocks meet straight or crossed: half of a table is enough.
        sign_left, sign_right = 1.0 - 2.0 * left, 1.0 - 2.0 * right
        mass = flow.sum()
        return (mass + np.abs(sign_left @ flow @ sign_right.T)) / 2
    out = np.empty((len(left), len(right)))
    moved = np.einsum("ab,tbh->tha", flow, one[right], optimize=True).reshape(-1, flow.shape[0])
    step = max(1, ROOM // max(1, len(right) * devices * devices))
    for start in range(0, len(left), step):
        part = one[left[start : start + step]].transpose(0, 2, 1).reshape(-1, flow.shape[0])
        meet = (part @ moved.T).reshape(-1, devices, len(right), devices)
        out[start : start + step] = _best(meet, devices)
    return out


def _best(meet: Array, devices: int) -> Array:
    """[S, T] the greatest sum over a matching of blocks. `meet`: [S, device, T, device]."""
    if devices <= FEW:
        best = np.full((meet.shape[0], meet.shape[2]), -np.inf)
        for order in itertools.permutations(range(devices)):
            total = meet[:, 0, :, order[0]].copy()
            for block in range(1, devices):
                total += meet[:, block, :, order[block]]
            np.maximum(best, total, out=best)
        return best
    from scipy.optimize import linear_sum_assignment

    out = np.empty((meet.shape[0], meet.shape[2]))
    for s in range(meet.shape[0]):
        for t in range(meet.shape[2]):
            table = meet[s, :, t]
            out[s, t] = table[linear_sum_assignment(table, maximize=True)].sum()
    return out


def named(problem: Problem, path: Sequence[NDArray[np.int64]]) -> Devices:
    """[L, E] device names for a partition a layer, each layer's blocks matched to those before."""
    from scipy.optimize import linear_sum_assignment

    one = np.eye(problem.devices)
    rows = [np.asarray(path[0], np.int64)]
    for flow, row in zip(problem.flow, path[1:], strict=True):
        meet = one[rows[-1]].T @ flow @ one[row]
        mine, blocks = linear_sum_assignment(meet, maximize=True)
        name = np.empty(problem.devices, np.int64)
        name[blocks] = mine
        rows.append(name[row])
    return np.stack(rows)


def exact(problem: Problem) -> Devices:
    """The optimum over all balanced partitions. Costs `count(E, devices) ** 2` a layer."""
    every = partitions(problem.experts, problem.devices)
    own = [_own(problem, layer, every) for layer in range(problem.layers)]
    best, back = own[0], []
    for layer, flow in enumerate(problem.flow):
        total, origin = _through(flow, every, every, best, problem.devices)
        back.append(origin)
        best = total + own[layer + 1]
    return named(problem, _trace_back(best, back, [every] * problem.layers))


def _through(flow: Array, left: Rows, right: Rows, best: Array, devices: int) -> tuple[Array, NDArray[np.int64]]:
    """Costs of reaching each right partition, and from which left one, in pieces that fit in memory."""
    mass, total, origin = flow.sum(), np.empty(len(right)), np.empty(len(right), np.int64)
    step = max(1, ROOM // len(left))
    for start in range(0, len(right), step):
        part = right[start : start + step]
        table = best[:, None] + mass - kept(flow, left, part, devices)
        origin[start : start + step] = table.argmin(0)
        total[start : start + step] = table.min(0)
    return total, origin


def _own(problem: Problem, layer: int, rows: Rows) -> Array:
    if not problem.together and not problem.balance:
        return np.zeros(len(rows))
    return np.array([layer_cost(problem, layer, row) for row in rows])


def _trace_back(best: Array, back: list[NDArray[np.int64]], lists: Sequence[Rows]) -> list[NDArray[np.int64]]:
    at = int(best.argmin())
    path = [lists[-1][at]]
    for layer in range(len(back) - 1, -1, -1):
        at = int(back[layer][at])
        path.append(lists[layer][at])
    return path[::-1]


@dataclass
class Pool:
    """Partitions that are worth having, layer by layer, and what they cost each other; grows as solutions come.

    - most: of a layer; the oldest beyond it go, those of the best solution stay."""

    problem: Problem
    most: int = 72
    lists: list[Rows] = field(init=False)
    tables: list[Array] = field(init=False)
    own: list[Array] = field(init=False)

    def __post_init__(self) -> None:
        nothing = np.empty((0, self.problem.experts), np.int64)
        self.lists = [nothing] * self.problem.layers
        self.tables = [np.empty((0, 0))] * (self.problem.layers - 1)
        self.own = [np.empty(0)] * self.problem.layers

    def add(self, rows: Devices) -> None:
        """Take in every layer's partition of a solution that is not there yet."""
        fresh = [self._fresh(layer, row) for layer, row in enumerate(rows)]
        devices = self.problem.devices
        for step, flow in enumerate(self.problem.flow):
            old_left, old_right = self.lists[step], self.lists[step + 1]
            left, right = fresh[step], fresh[step + 1]
            table = self.tables[step]
            if len(right):
                table = np.hstack([table, kept(flow, old_left, right, devices)])
            if len(left):
                every = np.vstack([old_right, right])
                table = np.vstack([table, kept(flow, left, every, devices)])
            self.tables[step] = table
        for layer, new in enumerate(fresh):
            if len(new):
                self.lists[layer] = np.vstack([self.lists[layer], new])
                self.own[layer] = np.append(self.own[layer], _own(self.problem, layer, new))

    def best(self) -> Devices:
        """The best way through what is there."""
        best, back = self.own[0], []
        for step, flow in enumerate(self.problem.flow):
            table = best[:, None] + flow.sum() - self.tables[step]
            back.append(table.argmin(0))
            best = table.min(0) + self.own[step + 1]
        return named(self.problem, _trace_back(best, back, self.lists))

    def trim(self, stay: Devices) -> None:
        """Keep at most `most` partitions a layer, the newest, and those of the solution `stay`."""
        keeps = []
        for layer, rows in enumerate(self.lists):
            keep = np.zeros(len(rows), bool)
            keep[max(0, len(rows) - self.most) :] = True
            keep |= (rows == _canonical(stay[layer])).all(1)
            keeps.append(keep)
        for layer, keep in enumerate(keeps):
            self.lists[layer], self.own[layer] = self.lists[layer][keep], self.own[layer][keep]
        for step in range(len(self.tables)):
            self.tables[step] = self.tables[step][keeps[step]][:, keeps[step + 1]]

    def _fresh(self, layer: int, row: NDArray[np.int64]) -> Rows:
        new = _canonical(row)
        known = len(self.lists[layer]) and (self.lists[layer] == new).all(1).any()
        return np.empty((0, len(row)), np.int64) if known else new[None]


def _canonical(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Blocks numbered in the order of their first experts."""
    _, first, inverse = np.unique(row, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
