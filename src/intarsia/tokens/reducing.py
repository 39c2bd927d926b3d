"""One reduction by a plan: pairs found and blended, or rows dropped."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from intarsia.sites.recomposing import Step
from intarsia.tokens.ensemble import combine
from intarsia.tokens.matching import MATCHERS, Pairs, prune
from intarsia.tokens.plan import Plan


def reduced(
    plan: Plan,
    stream: Tensor,
    sizes: Tensor,
    metric: Tensor,
    count: int,
    *,
    blocked: Tensor,
    importance: Tensor | None,
    seed: int,
    later: bool = False,
) -> tuple[Step, Pairs | None]:
    """`count` rows of `stream` fewer, and the pairs that were merged (None: rows were dropped).

    - metric: [batch, row, width] what rows are compared by; the rest as in `matching` and `ensemble.combine`.
    - seed: of random pairs."""
    if plan.matcher == "prune":
        return prune(stream, count, blocked=blocked, importance=importance), None
    options: dict[str, Any] = {"seed": seed} if plan.matcher == "random" else {}
    pairs = MATCHERS[plan.matcher](
        metric, count, blocked=blocked, importance=importance, strength=plan.strength, later=later, **options
    )
    step = combine(
        stream,
        sizes,
        pairs,
        weights=importance if plan.temperature is not None else None,
        temperature=plan.temperature,
        form=plan.ensemble,  # type: ignore[arg-type]
        norm=plan.norm,
    )
    return step, pairs
