"""`Pairs`: which rows are merged into which."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """What a matcher decided, the best pair first.

    - source: [batch, pair] int64, rows that are merged away; no row is in it twice.
    - target: [batch, pair] int64, the row each one is merged into: never a source itself, may have several sources.
    - valid: [batch, pair] bool, the real pairs where samples have fewer than others; None: all are.
    - score: [batch, pair] float32 cosine similarity of the two rows; None where nobody computed it."""

    source: Tensor
    target: Tensor
    valid: Tensor | None = None
    score: Tensor | None = None
