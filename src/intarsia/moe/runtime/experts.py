"""The experts of one layer that a rank holds, in the place of the network's own experts module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

TILE = 16
"""Rows of a tile: a matrix product of this many rows gives a row the same bits wherever it lies among them."""

Exchange = Callable[[Tensor, Tensor, Tensor], Tensor]


class PlacedExperts(nn.Module):
    """The network's experts module with the weights of the held experts only.

    - inner: the module itself, its tensors cut to the held experts (in the order of `held`).
    - experts: how many the whole layer has.
    - exchange: what answers the block's call with (states [n, width], experts [n, k], weights [n, k]): set by the
      runtime. None: what the held experts alone give.
    - tiled: every product has `TILE` rows, filled up with zeros."""

    def __init__(self, inner: nn.Module, held: Sequence[int], experts: int):
        super().__init__()
        self.inner, self.held, self.experts = inner, list(held), experts
        self.exchange: Exchange | None = None
        self.tiled = False
        where = torch.full((experts,), -1)
        where[self.held] = torch.arange(len(self.held))
        self.register_buffer("where", where, persistent=False)

    def forward(self, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """[n, width] the weighted sum of the chosen experts' outputs."""
        if self.exchange is not None:
            return self.exchange(states, chosen, weights)
        row, _, given = self.pairs(states, chosen, weights, self.where[chosen] >= 0)
        return torch.zeros_like(states).index_add_(0, row, given)

    def pairs(self, states: Tensor, chosen: Tensor, weights: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted outputs of single (row, expert) pairs, by expert: rows [p], experts [p], outputs [p, width].

        - wanted: [n, k] bool, the pairs to run; their experts must be held here."""
        row, column = torch.where(wanted)
        expert = chosen[row, column]
        order = torch.argsort(expert * (len(states) + 1) + row)
        row, column, expert = row[order], column[order], expert[order]
        if not len(row):
            return row, expert, states[:0]
        weight = weights[row, column, None]
        if not self.tiled:
            return row, expert, self.inner(states[row], self.where[expert][:, None], weight)
        given = torch.empty(len(row), states.shape[1], dtype=states.dtype, device=states.device)
        for one in expert.unique().tolist():
            for part in torch.where(expert == one)[0].split(TILE):
                tile = states.new_zeros(TILE, states.shape[1])
                tile[: len(part)] = states[row[part]]
                share = weight.new_zeros(TILE, 1)
                share[: len(part)] = weight[part]
                index = self.where[expert[part[:1]]].expand(TILE)[:, None]
                given[part] = self.inner(tile, index, share)[: len(part)]
        return row, expert, given
