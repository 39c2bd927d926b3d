"""How low the crossing rate could be at all: valid bounds, so that a placement comes with a gap and not only a value.

Layers are coupled in pairs, so the mean of the pairs' own bounds holds for the whole. Of two bounds the better is taken
for each pair: that of matching every expert with as many of the next layer as share a device (exact where a device
holds one), and that of the flow's singular values. Where a pair's partitions can be listed, its optimum is known."""

from __future__ import annotations

import numpy as np

from intarsia.moe.placement.problem import Array, Problem
from intarsia.moe.placement.viterbi import count, kept, partitions

PAIR_EXPERTS = 12  # experts up to which a step's own optimum is taken as its bound
PAIR_STATES = 6500  # partitions up to which a pair is solved by listing them


def lower_bound(problem: Problem) -> float:
    """A value that the mean share of tokens changing device cannot go below, whatever the placement."""
    if not len(problem.flow):
        return 0.0
    return float(np.mean([pair_bound(flow, problem) for flow in problem.flow]))


def pair_bound(flow: Array, problem: Problem) -> float:
    """Of one step between layers. `flow`: [E, E]."""
    mass = float(flow.sum())
    if (alone := pair_optimum(flow, problem)) is not None and len(flow) <= PAIR_EXPERTS:
        return max(0.0, alone)
    most = min(matched(flow, problem.slots), spectral(flow, problem.devices, problem.slots, problem.empty))
    return max(0.0, mass - min(most, mass))


def pair_optimum(flow: Array, problem: Problem) -> float | None:
    """The pair's own best share, by listing; None where there are too many partitions."""
    if problem.empty or count(problem.experts, problem.devices) > PAIR_STATES:
        return None
    every = partitions(problem.experts, problem.devices)
    best = max(float(kept(flow, every[i : i + 512], every, problem.devices).max()) for i in range(0, len(every), 512))
    return float(flow.sum()) - best


def matched(flow: Array, slots: int) -> float:
    """The most that stays if every expert only has to have `slots` partners on the other side.

    A transport problem with bounds 0 and 1, whose linear programme has whole solutions."""
    from scipy.optimize import linear_sum_assignment

    if slots == 1:
        rows, columns = linear_sum_assignment(flow, maximize=True)
        return float(flow[rows, columns].sum())
    from scipy import sparse
    from scipy.optimize import linprog

    experts = len(flow)
    wide = sparse.kron(sparse.eye(experts), np.ones((1, experts)))
    tall = sparse.kron(np.ones((1, experts)), sparse.eye(experts))
    found = linprog(
        -flow.ravel(), A_ub=sparse.vstack([wide, tall]).tocsr(), b_ub=np.full(2 * experts, float(slots)),
        bounds=(0, 1), method="highs",
    )  # fmt: skip
    return float(-found.fun)


def spectral(flow: Array, devices: int, slots: int, empty: int = 0) -> float:
    """The most that stays by the flow's singular values.

    With X the [E, devices] table of a partition, X'X = slots * I and X1 = 1, so of flow = mean + rest the mean part
    keeps mass / devices, and the rest at most slots times its first devices - 1 singular values. Empty slots are filled
    by experts without flow."""
    full = np.pad(flow, ((0, empty), (0, empty)))
    centred = full - full.mean(0, keepdims=True) - full.mean(1, keepdims=True) + full.mean()
    values = np.linalg.svd(centred, compute_uv=False)
    return float(flow.sum() / devices + slots * values[: devices - 1].sum())
