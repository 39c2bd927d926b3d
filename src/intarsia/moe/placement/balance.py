"""Fewer steps between devices, or the same work on each: what the one costs in the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from intarsia.measure.scores import front
from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.problem import Problem, cost, crossing, imbalance
from intarsia.moe.placement.solving import solve

WEIGHTS = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
HALVINGS = 5


@dataclass(frozen=True, eq=False)
class Point:
    """- weight: of balance beside a step; value: the objective without balance, per step; crossing: share of steps that
    change device; load: of the fullest device over the mean, in the mean over layers; device_of: [L, E]."""

    weight: float
    value: float
    crossing: float
    load: float
    device_of: Devices


def pareto(
    problem: Problem, best: Devices, *, within: float | None = None, effort: int = 100, seed: int = 0
) -> list[Point]:
    """Placements none of which is better in both, from the least cost to the evenest load; `best` is the first.

    Cost is the problem's own without balance: crossing, less what is used together where that counts. `within`: a load
    that is looked at more closely, by halving the weights around it."""
    assert problem.load is not None
    points, rows = [_point(problem, 0.0, best)], best
    for weight in WEIGHTS:
        rows = solve(
            replace(problem, balance=weight), effort=effort, seed=seed, first=(rows, best), bounded=False
        ).device_of
        points.append(_point(problem, weight, rows))
    if within is not None and any(p.load <= within for p in points[1:]):
        high = next(p for p in points[1:] if p.load <= within)
        low = points[points.index(high) - 1]
        for _ in range(HALVINGS):
            weight = (low.weight + high.weight) / 2
            some = replace(problem, balance=weight)
            middle = _point(
                problem, weight, solve(some, effort=effort, seed=seed, first=(low.device_of,), bounded=False).device_of
            )
            points.append(middle)
            low, high = (low, middle) if middle.load <= within else (middle, high)
    points.sort(key=lambda p: p.weight)
    best_of = [points[i] for i in front([(-p.value, -p.load) for p in points])]
    rest = [p for p in best_of if p is not points[0] and p.load < points[0].load]
    return [points[0], *sorted(rest, key=lambda p: -p.load)]


def _point(problem: Problem, weight: float, rows: Devices) -> Point:
    assert problem.load is not None
    load = float(np.mean(imbalance(problem.load, rows, problem.devices)))
    plain = replace(problem, balance=0.0)
    value = cost(plain, rows) / max(1, problem.layers - 1)
    return Point(weight, value, crossing(problem.flow, rows), load, rows)
