"""The lowest point of a function of one number that has a single minimum."""

from __future__ import annotations

from collections.abc import Callable


def lowest(loss: Callable[[float], float], low: float, high: float, rounds: int = 60) -> float:
    """Where `loss` is lowest between two numbers, by golden-section search."""
    ratio = (5**0.5 - 1) / 2
    for _ in range(rounds):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return (low + high) / 2
