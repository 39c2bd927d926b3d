"""One choice for each layer (bits, rank, width), so that the sum of harms is least and the sum of costs keeps a budget:
the multiple-choice knapsack.

The Lagrangian relaxation gives choices that are optimal for the cost they have (each layer by itself takes the choice
of least harm + price * cost); what it leaves of the budget is filled by single exchanges. Where the gap to its bound is
not closed, the integer programme is solved outright (HiGHS).

Source: Kellerer, Pferschy & Pisinger 2004, Knapsack Problems, chapter 11."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.errors import BadInput

STEPS = 100  # bisections of the price
SECONDS = 10.0  # of the integer programme


@dataclass(frozen=True)
class Allocation:
    """- chosen: of each item, the number of its choice. harm, cost: sums. bound: no choice within the budget has less
    harm than this."""

    chosen: tuple[int, ...]
    harm: float
    cost: float
    bound: float


def allocate(harms: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], budget: float) -> Allocation:
    """The best choice of each item.

    - harms, costs: of each item's choices; items may have different numbers of them.

    Raises `BadInput` where even the cheapest choices cost more than the budget, with what they cost."""
    if not harms:
        return Allocation((), 0.0, 0.0, 0.0)
    harm, cost = _table(harms), _table(costs)
    least = float(cost.min(1).sum())
    if least > budget * (1 + 1e-12):
        raise BadInput(f"the budget is {budget:,.0f}, and the cheapest choice of everything costs {least:,.0f}")
    best = _priced(harm, cost, 0.0)
    if _sum(cost, best) <= budget:
        value = _sum(harm, best)
        return Allocation(tuple(best.tolist()), value, _sum(cost, best), value)
    low, high = 0.0, 1.0
    while _sum(cost, _priced(harm, cost, high)) > budget and high < 1e300:
        low, high = high, high * 8
    bound = -np.inf
    for _ in range(STEPS):
        price = (low + high) / 2
        chosen = _priced(harm, cost, price)
        total = _sum(cost, chosen)
        bound = max(bound, _sum(harm, chosen) + price * (total - budget))
        low, high = (price, high) if total > budget else (low, price)
    chosen = _filled(harm, cost, _priced(harm, cost, high), budget)
    if _sum(harm, chosen) > bound + 1e-9 * max(1.0, abs(bound)):
        chosen = _solved(harm, cost, budget, chosen)
    return Allocation(tuple(chosen.tolist()), _sum(harm, chosen), _sum(cost, chosen), float(bound))


def _table(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """[item, choice], with infinity where an item has fewer."""
    out = np.full((len(rows), max(map(len, rows))), np.inf)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _sum(table: np.ndarray, chosen: np.ndarray) -> float:
    return float(table[np.arange(len(table)), chosen].sum())


def _priced(harm: np.ndarray, cost: np.ndarray, price: float) -> np.ndarray:
    """Each item's best choice when a unit of cost has a price; of equal ones the cheapest."""
    with np.errstate(invalid="ignore"):
        value = np.where(np.isinf(cost), np.inf, harm + price * np.where(np.isinf(cost), 0.0, cost))
    best = value.min(1, keepdims=True)
    return np.where(value <= best + 1e-15 * np.abs(best), cost, np.inf).argmin(1)


def _filled(harm: np.ndarray, cost: np.ndarray, chosen: np.ndarray, budget: float) -> np.ndarray:
    """Exchanges of one item's choice that still fit, the one that gains most first."""
    chosen = chosen.copy()
    rows = np.arange(len(chosen))
    left = budget - _sum(cost, chosen)
    while True:
        more = cost - cost[rows, chosen][:, None]
        gain = harm[rows, chosen][:, None] - harm
        gain[(more > left) | np.isinf(cost)] = -np.inf
        item, choice = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[item, choice] > 0:
            return chosen
        left -= more[item, choice]
        chosen[item] = choice


def _solved(harm: np.ndarray, cost: np.ndarray, budget: float, start: np.ndarray) -> np.ndarray:
    """By HiGHS, for a few seconds; the start where it finds nothing better, or SciPy is not installed."""
    try:
        from scipy import optimize, sparse
    except ImportError:
        return start

    item, choice = np.nonzero(np.isfinite(cost))
    count = len(item)
    one = sparse.csr_matrix((np.ones(count), (item, np.arange(count))), shape=(len(harm), count))
    scale = max(float(harm[item, choice].max()), 1e-300)
    found = optimize.milp(
        harm[item, choice] / scale,
        constraints=[
            optimize.LinearConstraint(one, 1, 1),
            optimize.LinearConstraint(cost[item, choice][None] / budget, -np.inf, 1.0),
        ],
        integrality=np.ones(count), bounds=optimize.Bounds(0, 1), options={"time_limit": SECONDS},
    )  # fmt: skip
    if found.x is None:
        return start
    chosen = start.copy()
    chosen[item[found.x > 0.5]] = choice[found.x > 0.5]
    better = _sum(harm, chosen) < _sum(harm, start) and _sum(cost, chosen) <= budget * (1 + 1e-9)
    return chosen if better else start
