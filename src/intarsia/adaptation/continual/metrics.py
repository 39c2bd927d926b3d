"""How a stream of tasks went, from the matrix of scores.

`R[j][i]` is the score on task i after learning task j (None: not measured), in percent; T tasks."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[float | None]


def average_performance(matrix: Sequence[Row]) -> float | None:
    """AP = (1/T) sum_i `R[T][i]` (Chaudhry et al. 2018)."""
    return _mean(matrix[-1])


def forgetting_rate(matrix: Sequence[Row]) -> float | None:
    """F.Ra = (1/(T-1)) sum_{i<T} (max_{i<=j<T} `R[j][i] - R[T][i]`); lower is better (Chaudhry et al. 2018)."""
    count, last = len(matrix), matrix[-1]
    if count < 2:
        return None
    best = [_most([matrix[j][i] for j in range(i, count - 1)]) for i in range(count - 1)]
    return _mean([None if b is None or (now := last[i]) is None else b - now for i, b in enumerate(best)])


def backward_transfer(matrix: Sequence[Row]) -> float | None:
    """BWT = (1/(T-1)) sum_{i<T} (`R[T][i] - R[i][i]`) (Lopez-Paz and Ranzato 2017)."""
    last, own = matrix[-1], diagonal(matrix)
    return _mean([None if a is None or b is None else a - b for a, b in zip(last[:-1], own[:-1], strict=False)])


def forward_transfer(matrix: Sequence[Row], single: Row) -> float | None:
    """FWT = mean_i `R[i][i]` - mean_i r_i, with r_i the score of a model tuned on task i alone (SAPT, its metrics)."""
    own = [(a, b) for a, b in zip(diagonal(matrix), single, strict=False) if a is not None and b is not None]
    return _mean([a - b for a, b in own])


def zero_shot_transfer(before: Row, base: Row) -> float | None:
    """What earlier tasks gave to a task before it was learned: mean over tasks but the first of the score right before
    learning it, less that of the model as it was given (Lopez-Paz and Ranzato 2017, their FWT)."""
    return _mean([a - b for a, b in list(zip(before, base, strict=False))[1:] if a is not None and b is not None])


def diagonal(matrix: Sequence[Row]) -> list[float | None]:
    """[task] the score right after learning it."""
    return [row[i] if i < len(row) else None for i, row in enumerate(matrix)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _most(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
