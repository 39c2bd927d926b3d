"""MRR and hits, and what growth does to them: forward and backward transfer, drift and interference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic

EVALUATORS = ("all", "old", "official")
"""What a test of snapshot j is ranked against once the graph has grown to snapshot i.

- all: every entity there is by now, filtered by every fact known by now. What a user gets.
- old: the entities there were at j, filtered by the facts known at j. What the papers report, rightly filtered.
- official: as `old`, but without the facts of valid in the filter: what LKGE's published code computes."""

HITS = (1, 3, 10)


class Ranking(pydantic.BaseModel):
    """Of a set of ranks: mean reciprocal rank, and the share within the first 1, 3 and 10."""

    mrr: float
    hits1: float
    hits3: float
    hits10: float
    count: int

    @staticmethod
    def of(ranks: Any) -> Ranking:
        """From ranks (1 is best)."""
        if not len(ranks):
            return Ranking(mrr=0.0, hits1=0.0, hits3=0.0, hits10=0.0, count=0)
        hits = [float((ranks <= k).mean()) for k in HITS]
        return Ranking(mrr=float((1 / ranks).mean()), hits1=hits[0], hits3=hits[1], hits10=hits[2], count=len(ranks))

    @staticmethod
    def mean(parts: Sequence[Ranking]) -> Ranking:
        """Of several, weighted by their counts."""
        count = sum(part.count for part in parts)
        if not count:
            return Ranking.of(())
        total = {
            name: sum(getattr(part, name) * part.count for part in parts) / count
            for name in ("mrr", "hits1", "hits3", "hits10")
        }
        return Ranking(**total, count=count)


Rankings = dict[str, Ranking]
"""A `Ranking` for each of the evaluators."""


def rankings(ranks: Any) -> Rankings:
    """From what `ranks` gives."""
    return {name: Ranking.of(ranks[i]) for i, name in enumerate(EVALUATORS)}


def forward_transfer(before: Sequence[Ranking | None]) -> float | None:
    """FWT: the mean MRR on the test of each snapshot but the first, before it was learned. None where unknown."""
    known = [ranking.mrr for ranking in before[1:] if ranking is not None and ranking.count]
    return sum(known) / len(known) if known else None


def backward_transfer(matrix: Sequence[Sequence[Ranking]]) -> float | None:
    """BWT: the mean change of the MRR on earlier tests from when they were learned until now; negative: forgetting.

    - matrix[i][j]: on the test of snapshot j after learning snapshot i."""
    last = len(matrix) - 1
    parts = [matrix[last][j].mrr - matrix[j][j].mrr for j in range(last) if matrix[j][j].count]
    return sum(parts) / len(parts) if parts else None


def forgetting(matrix: Sequence[Sequence[Rankings]]) -> tuple[float, float] | None:
    """(drift, interference): what the MRR on earlier tests lost, on average, to vectors that moved (against the
    candidates of the time), and to entities that came later and rank before the answer (all candidates against those).

    Both are positive where something was lost; their sum is minus the BWT with all candidates."""
    last = len(matrix) - 1
    rows = [j for j in range(last) if matrix[j][j]["old"].count]
    if not rows:
        return None
    drift = [matrix[j][j]["old"].mrr - matrix[last][j]["old"].mrr for j in rows]
    interference = [matrix[last][j]["old"].mrr - matrix[last][j]["all"].mrr for j in rows]
    return sum(drift) / len(rows), sum(interference) / len(rows)
