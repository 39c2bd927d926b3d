"""Which rung to take: the cheapest that is good enough.

Source: one-standard-error rule, Breiman et al. 1984, "Classification and Regression Trees", §3.4.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.routes.figures import standard_error
from intarsia.adaptation.routes.finding import NAMES

if TYPE_CHECKING:
    from intarsia.adaptation.routes.finding import Step


def choose(
    steps: Sequence[Step], minutes: Mapping[str, float], metric: str, target: float | None, true: np.ndarray,
    labels: int, groups: Sequence[str | None], seed: int,
) -> tuple[str, str]:  # fmt: skip
    """The rung, and why, in words that follow its name.

    - with a target: of those that reach it, the one that took the fewest minutes to learn; where none does, the best.
    - without: of those that are worse than the best by one standard error of the difference at most (paired, over
      groups), the one that took the fewest minutes."""

    def figure(step: Step) -> float:
        return step.dev[metric][0]

    def cost(step: Step) -> float:
        return minutes[step.name]

    best = max(steps, key=figure)
    if target is not None:
        enough = [step for step in steps if figure(step) >= target]
        if not enough:
            return best.name, f"nothing reaches a {NAMES[metric]} of {target:.1%}, and it comes nearest"
        taken = min(enough, key=cost)
        how = "the only one" if len(enough) == 1 else f"the cheapest of {len(enough)}"
        return taken.name, f"{how} to reach a {NAMES[metric]} of {target:.1%} ({cost(taken):.2f} minutes to learn)"
    near = [
        step for step in steps
        if figure(best) - figure(step)
        <= standard_error(metric, best.answers, step.answers, true, labels, groups, seed) + 1e-12
    ]  # fmt: skip
    taken = min(near, key=cost)
    if taken is best:
        return (
            taken.name,
            f"the best, and nothing cheaper is within one standard error ({cost(taken):.2f} minutes)",
        )
    return taken.name, (
        f"the cheapest within one standard error of the best ({cost(taken):.2f} minutes to learn; {best.name}: "
        f"{figure(best):.1%} in {cost(best):.2f})"
    )
