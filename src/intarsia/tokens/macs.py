"""The multiply-accumulates of a tower whose blocks lose rows, by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intarsia.errors import BadInput


@dataclass(frozen=True)
class TowerShape:
    """What a tower of transformer blocks computes.

    - tokens: rows at the first block, class and cross tokens included.
    - layers, width: blocks, and the width of the attention.
    - attention_weights: multiply-accumulates for each row in the linear maps of a block's attention; None: four square
      maps. mlp_weights: the same for its MLP; None: two maps to four times the width and back.
    - embedding: once for the whole picture (a patch embedding: patches * patch pixels * width).
    - matching_width: of the features that are compared where rows are removed, every row with every other; 0: not
      counted."""

    tokens: int
    layers: int
    width: int
    attention_weights: int | None = None
    mlp_weights: int | None = None
    embedding: int = 0
    matching_width: int = 0


def tower_macs(shape: TowerShape, removed: Sequence[int] = ()) -> int:
    """Multiply-accumulates of one sample. `removed` lists how many rows each block removes between its attention and
    its MLP (empty: none). The two products of attention count in full, with or without a causal mask."""
    removed = removed or (0,) * shape.layers
    if len(removed) != shape.layers:
        raise BadInput(f"removed lists {len(removed)} blocks, the tower has {shape.layers}")
    width, rows, total = shape.width, shape.tokens, shape.embedding
    attention = 4 * width**2 if shape.attention_weights is None else shape.attention_weights
    mlp = 8 * width**2 if shape.mlp_weights is None else shape.mlp_weights
    for r in removed:
        total += rows * attention + 2 * rows**2 * width
        if r:
            total += (rows**2 + rows) * shape.matching_width
        rows -= r
        total += rows * mlp
    return total


def kept_share(shape: TowerShape, removed: Sequence[int]) -> float:
    """The share of the dense tower's multiply-accumulates that is left when blocks remove so many rows."""
    return tower_macs(shape, removed) / tower_macs(shape)
