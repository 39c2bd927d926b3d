"""`Rule`: what a wing decides about the tokens of one tower; the engine does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from intarsia.sites.recomposing.step import Step

if TYPE_CHECKING:
    from intarsia.sites.recomposing.flow import Flow


@dataclass
class Seen:
    """What a block's self-attention worked with in this forward; None where its attention cannot be looked into.

    - q: [batch, head, token, width] queries, k: [batch, key-value head, token, width] keys, after position encoding.
    - scaling: what their product is multiplied with.
    - mask: [batch or 1, 1, token or 1, token] numbers that were added to the scores (None: nothing)."""

    q: Tensor | None = None
    k: Tensor | None = None
    scaling: float = 1.0
    mask: Tensor | None = None


class Rule(nn.Module):
    """The decisions for one tower. Parameters it holds become part of the network (`Recomposed.name`).

    A subclass overrides what it needs; as it stands the rule changes nothing."""

    last: int | None = None
    """The block whose output is what everyone reads (None: the tower's last). Later blocks are not run."""
    restore: bool = True
    """Whether the tower gives as many rows as it was given: merged rows again in each of their places. Then whatever
    comes after (pooling, placeholders, losses over positions) works as before, and means over the rows are exact."""

    drops: bool = False
    """Whether rows are only dropped, never merged: then who reads a tower that gives fewer need not weigh them."""
    proportional: bool = True
    """Whether attention weighs a row by the tokens it stands for (proportional attention; Bolya et al. 2023, §3)."""

    watching: bool = False
    """Whether somebody wants to know how alike merged rows are: then `reduce` leaves it in `flow.facts["score"]`."""

    def wants(self, flow: Flow) -> bool:
        """Whether to work on this forward at all; looked at once, before the first block."""
        return True

    def inputs(self, flow_inputs: dict) -> dict:
        """The keyword arguments of the tower's own model, before it runs (to trim padding, say)."""
        return flow_inputs

    def enter(self, flow: Flow, stream: Tensor) -> Tensor:
        """The stream before the first block; may append rows with `flow.append`."""
        return stream

    def before(self, flow: Flow, index: int, stream: Tensor) -> Tensor:
        """The stream before block `index`, [batch, token, width]; the number of rows stays."""
        return stream

    def reduces(self, flow: Flow, index: int) -> bool:
        """Whether block `index` is going to lose rows. Blocks that do not are run as they are."""
        return False

    def reduce(self, flow: Flow, index: int, stream: Tensor, seen: Seen) -> Step | None:
        """The reduction between attention and MLP of block `index` (after the block where both run in parallel)."""
        return None
