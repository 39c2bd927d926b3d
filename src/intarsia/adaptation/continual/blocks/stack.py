"""`Stack`: the low-rank updates of all tasks beside one linear layer, in one pass.

h = W x + sum_i weight_i s_i B_i A_i x, with s_i = alpha_i / rank_i. All A_i lie under one another and all B_i beside
one another, so that any number of blocks costs two products; each row of a batch has its own weights; gradients are
exact, through the frozen blocks too (Zhao et al. 2024, section 3, whose code drops those)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from intarsia.adaptation.continual.blocks.mixture import Mixture
from intarsia.errors import BadInput

Taken = tuple[nn.Parameter, nn.Parameter, float]
"""An open block's A, B and scale."""


class Stack(nn.Module):
    """Blocks beside the layer `name`.

    - layer: its number among the adapted layers; inputs, outputs: its own sizes (queries and values may differ).
    - down: [all ranks, input], up: [output, all ranks]; ranks and scales: of each block."""

    def __init__(self, name: str, layer: int, inputs: int, outputs: int, mixture: Mixture, device: torch.device):
        super().__init__()
        self.name, self.layer, self.inputs, self.outputs, self.mixture = name, layer, inputs, outputs, mixture
        self.ranks: list[int] = []
        self.scales: list[float] = []
        self.opened: int | None = None
        self.dropout = 0.0  # on the input, while a block is trained
        self.register_buffer("down", torch.zeros(0, inputs, device=device), persistent=False)
        self.register_buffer("up", torch.zeros(outputs, 0, device=device), persistent=False)
        self.new_down: nn.Parameter | None = None
        self.new_up: nn.Parameter | None = None

    def span(self, block: int) -> slice:
        """Where a block's ranks lie."""
        start = sum(self.ranks[:block])
        return slice(start, start + self.ranks[block])

    def block(self, index: int) -> tuple[Tensor, Tensor]:
        """(A [rank, input], B [output, rank]) of a block."""
        if index == self.opened:
            assert self.new_down is not None and self.new_up is not None
            return self.new_down.detach(), self.new_up.detach()
        span = self.span(index)
        return self.down[span], self.up[:, span]

    def add(self, down: Tensor, up: Tensor, scale: float) -> None:
        """One more block, frozen."""
        self.ranks.append(len(down))
        self.scales.append(scale)
        self.down = torch.cat([self.down, down.to(self.down)])
        self.up = torch.cat([self.up, up.to(self.up)], 1)

    def fresh(self, rank: int) -> tuple[Tensor, Tensor]:
        """A new block: A Kaiming-uniform (a = sqrt 5) from torch's global generator, B zero (Hu et al. 2021)."""
        down = torch.empty(rank, self.inputs)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        return down, torch.zeros(self.outputs, rank)

    def open(self, block: int) -> list[nn.Parameter]:
        """Make a block trainable; what is trained."""
        down, up = self.block(block)
        self.opened = block
        self.new_down, self.new_up = nn.Parameter(down.clone()), nn.Parameter(up.clone())
        return [self.new_down, self.new_up]

    def close(self) -> None:
        """Freeze it as it is now."""
        if self.opened is None:
            return
        span = self.span(self.opened)
        assert self.new_down is not None and self.new_up is not None
        self.down[span] = self.new_down.detach()
        self.up[:, span] = self.new_up.detach()
        self.opened = self.new_down = self.new_up = None

    def drop(self, block: int) -> None:
        """Take a block out."""
        keep = torch.ones(len(self.down), dtype=torch.bool)
        keep[self.span(block)] = False
        self.down, self.up = self.down[keep], self.up[:, keep]
        del self.ranks[block], self.scales[block]

    def take_out(self) -> Taken:
        """The newest block, which is open, out of its place, as it is; `put_back` is the inverse."""
        assert self.opened == len(self.ranks) - 1 and self.new_down is not None and self.new_up is not None
        out = self.new_down, self.new_up, self.scales[-1]
        self.drop(self.opened)
        self.opened = self.new_down = self.new_up = None
        return out

    def put_back(self, taken: Taken) -> None:
        """The same parameters, so that an optimiser that knows them goes on."""
        down, up, scale = taken
        self.add(down.detach(), up.detach(), scale)
        self.opened, self.new_down, self.new_up = len(self.ranks) - 1, down, up

    def _all(self, columns: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
        down, up = self.down, self.up
        if self.opened is not None:
            span = self.span(self.opened)
            assert self.new_down is not None and self.new_up is not None
            down = torch.cat([down[: span.start], self.new_down, down[span.stop :]])
            up = torch.cat([up[:, : span.start], self.new_up, up[:, span.stop :]], 1)
        if columns is None or len(columns) == len(self.ranks):
            return down, up
        spans = [self.span(block) for block in columns]
        if len(spans) == 1:
            return down[spans[0]], up[:, spans[0]]
        rows = torch.cat([torch.arange(s.start, s.stop, device=down.device) for s in spans])
        return down[rows], up[:, rows]

    def forward(self, x: Tensor) -> Tensor | None:
        """What is added for x [row, token, input] (or [row, input])."""
        weights = self.mixture.of(len(x), self.layer)
        columns = self.mixture.columns
        if weights is None or not self.ranks or columns == ():
            return None
        if weights.shape[1] != len(self.ranks):
            raise BadInput(f"{self.name}: weights for {weights.shape[1]} blocks, and there are {len(self.ranks)}")
        blocks = list(range(len(self.ranks))) if columns is None else list(columns)
        down, up = self._all(columns)
        scaled = weights[:, blocks] * weights.new_tensor([self.scales[b] for b in blocks])
        ranks = torch.tensor([self.ranks[b] for b in blocks], device=weights.device)
        share = scaled.repeat_interleave(ranks, 1, output_size=len(down)).to(down)
        x_in = x.to(down.dtype)
        if self.dropout and self.opened is not None and torch.is_grad_enabled():
            x_in = dropout(x_in, self.dropout)
        inner = linear(x_in, down)
        inner = inner * share.view(len(x), *[1] * (x.dim() - 2), -1)
        return linear(inner, up).to(x.dtype)
