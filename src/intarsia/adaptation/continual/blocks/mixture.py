"""`Mixture`: the weights of the blocks in the forward that is running, shared by all that mix by them."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.errors import BadInput

PRUNED = 0.01


class Mixture:
    """- weights: [row, block], or [row, layer, block] where layers differ; None: no block takes part."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None
        self.columns: tuple[int, ...] | None = None
        """Blocks that take part at all; None: all of them."""

    def set(self, weights: Tensor | None) -> None:
        """Take weights for the next forwards. Without gradients, what is below 0.01 is dropped and the rest scaled up
        to the sum there was, so that blocks which nobody uses cost nothing."""
        self.weights, self.columns = weights, None
        if weights is None or weights.requires_grad or torch.is_grad_enabled():
            return
        small = weights.abs() < PRUNED
        if bool(small.any()):
            kept = weights.masked_fill(small, 0)
            total = kept.sum(-1, keepdim=True)
            self.weights = torch.where(total > 0, kept * (weights.sum(-1, keepdim=True) / total), kept)
        used = self.weights.reshape(-1, weights.shape[-1]).abs().amax(0) > 0
        self.columns = tuple(used.nonzero().flatten().tolist())

    def of(self, rows: int, layer: int) -> Tensor | None:
        """[row, block] for a batch of so many rows: beams of a prompt share its weights.

        Raises `BadInput` for weights of another batch."""
        if self.weights is None:
            return None
        weights = self.weights if self.weights.dim() == 2 else self.weights[:, layer]
        if len(weights) == rows:
            return weights
        if len(weights) == 1:
            return weights.expand(rows, -1)
        if rows % len(weights) == 0:
            return weights.repeat_interleave(rows // len(weights), 0)
        raise BadInput(f"the blocks were weighed for {len(weights)} prompts, and the batch has {rows} rows")
