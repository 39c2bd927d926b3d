"""All figures of faithfulness for one text and one vector of scores, and the random floor beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.evaluation import bounds, effects, removal, soft
from intarsia.interpretation.evaluation.measures import MEASURES, SHORT

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained

NAN = float("nan")


@dataclass(frozen=True)
class Scale:
    """How a text is scored: the same for all methods, so that figures can be subtracted.

    - fractions: of tokens taken away. beam: width of the search for the bounds of AOPC (0: none are looked for).
    - full: all measures; else those of `SHORT`. points: of the deletion and insertion curves. draws: random sets for
      sensitivity-n and noise for the soft measures. floors: random orders whose mean is the floor."""

    fractions: tuple[float, ...] = removal.FRACTIONS
    beam: int = 2
    full: bool = True
    points: int = 20
    draws: int = 12
    floors: int = 5
    seed: int = 0

    @property
    def measures(self) -> list[str]:
        """Names of the figures, in order."""
        return [name for name in MEASURES if (self.full or name in SHORT) and (self.beam or "normalised" not in name)]


def figures(explained: Explained, scores: Tensor, scale: Scale, limits: Limits | None = None) -> dict[str, float]:
    """Every measure of `scale` for one text; NaN where a measure is not defined there.

    limits: from `limits_of`, so that they are searched once a text; needed where `scale.beam` is above 0."""
    scores = scores.detach().double().cpu()
    ranking = removal.order(scores)
    comp = removal.aopc(removal.comprehensiveness(explained, ranking, scale.fractions))
    suff = removal.aopc(removal.sufficiency(explained, ranking, scale.fractions))
    out = {"comprehensiveness": comp, "sufficiency": suff}
    if scale.full:
        single = effects.effects(explained)
        sets = effects.sensitivity_n(explained, scores, _set_sizes(len(scores)), scale.draws, scale.seed)
        known = [value for value in sets.values() if not math.isnan(value)]
        thinned = soft.soft(explained, scores, scale.draws, scale.seed)
        out |= {
            "log_odds_drop": removal.log_odds_drop(explained, ranking, scale.fractions),
            "deletion": removal.deletion(explained, ranking, scale.points),
            "insertion": removal.insertion(explained, ranking, scale.points),
            "flip_fraction": _or_nan(removal.flip_fraction(explained, ranking, scale.points)),
            "flips_at_first": _or_nan(removal.flips_at_first(explained, ranking)),
            "tau_loo": effects.tau_loo(scores, single),
            "monotonicity": effects.monotonicity(scores, single),
            "violation_rate": effects.violation_rate(scores, single),
            "sensitivity_n": sum(known) / len(known) if known else NAN,
            "completeness_error": effects.completeness_error(explained, scores),
            "soft_comprehensiveness": thinned[0],
            "soft_sufficiency": thinned[1],
        }
    return normalised({name: out.get(name, NAN) for name in scale.measures}, limits)


Limits = tuple[bounds.Bounds, bounds.Bounds]


def normalised(row: dict[str, float], limits: Limits | None) -> dict[str, float]:
    """The row with its normalised figures filled in. They are linear, so the row may be a mean over random orders."""
    if limits is None:
        return row
    comp = bounds.normalised(row["comprehensiveness"], limits[0])
    suff = bounds.normalised(row["sufficiency"], limits[1])
    return row | {
        "comprehensiveness_normalised": comp,
        "sufficiency_normalised": suff,
        "normalised": (comp + 1 - suff) / 2,
    }


def widened(limits: Limits | None, rows: Sequence[dict[str, float]]) -> Limits | None:
    """Bounds that hold for these rows, too: where a method beats the order that the search found, its own is the best
    known. Without this, texts on which hardly anything matters give ratios far beyond 1."""
    if limits is None:
        return None
    comp, suff = (
        (min(low, *(row[name] for row in rows)), max(high, *(row[name] for row in rows)))
        for (low, high), name in zip(limits, ("comprehensiveness", "sufficiency"), strict=True)
    )
    return comp, suff


def limits_of(explained: Explained, scale: Scale) -> Limits | None:
    """The bounds of AOPC on a text, or None where none are looked for."""
    return bounds.aopc_bounds(explained, scale.fractions, scale.beam) if scale.beam else None


def floor(explained: Explained, scale: Scale, limits: Limits | None = None) -> dict[str, float]:
    """The mean of every measure over random scores (standard normal, so that signs are random, too)."""
    generator = torch.Generator().manual_seed(scale.seed)
    count = len(explained.features)
    drawn = [torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(scale.floors)]
    return mean_of([figures(explained, scores, scale, limits) for scores in drawn])


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over rows that have it (NaN when none has)."""
    out = {}
    for name in rows[0]:
        known = [row[name] for row in rows if not math.isnan(row[name])]
        out[name] = sum(known) / len(known) if known else NAN
    return out


def _set_sizes(count: int) -> list[int]:
    """A tenth, a quarter and half of the tokens; a set of all of them would not vary."""
    return sorted({min(max(count - 1, 1), max(1, round(share * count))) for share in (0.1, 0.25, 0.5)})


def _or_nan(value: float | None) -> float:
    return NAN if value is None else value
