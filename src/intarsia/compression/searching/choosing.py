"""Which point is taken: the best by the objective of those that keep the budget; and what comes nearest, where none
does.

The front is over quality, bytes, and whatever else the budget bounds or seeks, so the point that is taken is on it."""

from __future__ import annotations

from collections.abc import Sequence

from intarsia.compression.searching.budgets import METRICS, Budget
from intarsia.compression.searching.finding import Point
from intarsia.measure.scores import front as pareto

SHOWN = 3  # points that are named where none keeps the budget


def front(points: Sequence[Point], budget: Budget) -> None:
    """Mark the verified points that none dominates in the figures that count."""
    verified = [p for p in points if p.stage == "verified"]
    axes = ["quality", "bytes", budget.objective, *(b.metric.name for b in budget.bounds)]
    on = {id(verified[i]) for i in pareto([[_figure(p, name) for name in axes] for p in verified])}
    for point in points:
        point.front = id(point) in on


def _figure(point: Point, name: str) -> float:
    """The larger the better; what was not measured counts as the worst."""
    value = point.values.get(name)
    if value is None:
        return float("-inf")
    return value if METRICS[name].better == "higher" else -value


def taken(points: Sequence[Point], budget: Budget) -> Point | None:
    """Mark and give the point to take, None where none keeps the budget."""
    for point in points:
        point.taken = False
    keeping = [p for p in points if p.stage == "verified" and not p.broken and p.front]
    if not keeping:
        return None
    best = max(keeping, key=lambda p: (_figure(p, budget.objective), _figure(p, "quality"), _figure(p, "bytes")))
    best.taken = True
    return best


def nearest(points: Sequence[Point]) -> str:
    """The points of the front that came nearest, each with the bounds it breaks and by how much."""
    verified = [p for p in points if p.stage == "verified" and p.front]
    if not verified:
        return "nothing could be built"
    ordered = sorted(verified, key=lambda p: (len(p.broken), -p.values.get("quality", 0.0)))[:SHOWN]
    return "; ".join(f"{p.name} breaks {', '.join(_missed(p, bound) for bound in p.broken)}" for p in ordered)


def _missed(point: Point, bound: str) -> str:
    from intarsia.compression.searching.budgets import parse_budget

    (one,) = parse_budget(bound).bounds
    value = (point.ratios if one.relative else point.values)[one.metric.name]
    shown = f"{value:.3g}x" if one.relative else f"{value / 1e6:.1f} MB" if one.metric.unit == "B" else f"{value:.4g}"
    return f"{bound} (it has {shown})"
