"""Fewer rows removed for a while, so that a network gets used to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from intarsia.sites.recomposing import installed


@contextlib.contextmanager
def annealed(network: nn.Module) -> Iterator[Callable[[float], None]]:
    """Gives a function that sets the share (0 to 1) of the planned rows that is removed, in each block of each tower.

    After the block, however it ends, the plans are what they were."""
    rules: list[Any] = [o.rule for o in installed(network).values() if hasattr(o.rule, "plan")]
    plans = [rule.plan for rule in rules]

    def remove(share: float) -> None:
        for rule, plan in zip(rules, plans, strict=True):
            rule.plan = plan if share >= 1 else reduced(plan, share)

    try:
        yield remove
    finally:
        for rule, plan in zip(rules, plans, strict=True):
            rule.plan = plan


def reduced(plan: Any, share: float) -> Any:
    """`plan` with that share of its removed rows, rounded to whole rows."""
    removed = tuple(int(r * share + 0.5) for r in plan.removed)
    return replace(plan, removed=removed, shares=tuple(s * share for s in plan.shares))
