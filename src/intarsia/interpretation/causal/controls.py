"""What is written in place of the right state, to see what any state would do (a causal map's controls)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.causal.cells import base_run, site
from intarsia.sites import Activations, batch_of

if TYPE_CHECKING:
    from intarsia.models import Model


class Controls:
    """Control states for any site and position of a source run.

    - `prompt`: the state of another prompt at the same position (its last one where it is shorter).
    - `gaussian`: random numbers with the norm of the state they stand for (of each head's, at sites with heads).
    - `mean`: the mean state of the other prompt and the source, without their first tokens, which are attention
      sinks."""

    def __init__(self, model: Model, source: Activations, kinds: Sequence[str], prompt: str, seed: int):
        self.model, self.source = model, source
        self.other = base_run(model, batch_of(model, prompt), kinds)
        self.generator = torch.Generator().manual_seed(seed)

    def state(self, which: str, layer: int, kind: str, positions: Sequence[int], head: int | None = None) -> Tensor:
        """[position, ...] of one control."""
        name = site(self.model, layer, kind)
        source, other = self.source[name][0], self.other[name][0]
        if head is not None:
            source, other = source[:, head], other[:, head]
        right = source[list(positions)]
        if which == "prompt":
            return other[[min(p, len(other) - 1) for p in positions]]
        if which == "mean":
            both = torch.cat([source[1:], other[1:]]) if len(source) + len(other) > 2 else torch.cat([source, other])
            return both.mean(0).expand_as(right)
        noise = torch.randn(right.shape, generator=self.generator).to(right)
        return noise * (right.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
