"""Modules whose output for a row has the same bits whatever other rows there are.

A matrix product picks its kernel by the number of rows, and with it the order of its sums. Here every product has the
same number of rows, filled up with zeros (specification: bit-equality needs row-invariant products in *both* runs)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from intarsia.moe.runtime.experts import TILE, PlacedExperts
from intarsia.sites import exchange


class TiledLinear(nn.Linear):
    """A linear layer that works on `TILE` rows at a time; shares the weights of the one it is made from."""

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        rows = input.reshape(-1, input.shape[-1])
        whole = rows.new_zeros(-(-len(rows) // TILE) * TILE, rows.shape[1])
        whole[: len(rows)] = rows
        given = [nn.functional.linear(tile, self.weight, self.bias) for tile in whole.split(TILE)]
        output = torch.cat(given)[: len(rows)] if given else rows.new_zeros(0, self.out_features)
        return output.reshape(*input.shape[:-1], self.out_features)


class Tiled(nn.Module):
    """A module that works row by row (a router), given `TILE` rows at a time; every tensor it gives has a row each."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)  # what blocks read of their router: `top_k`, `weight`

    def forward(self, states: Tensor) -> Any:
        """What the module gives for states [..., width], rows first."""
        rows = states.reshape(-1, states.shape[-1])
        whole = rows.new_zeros(-(-len(rows) // TILE) * TILE, rows.shape[1])
        whole[: len(rows)] = rows
        # (its forward, not the module: to whoever looks for routers there is one here, not two)
        given = [self.inner.forward(tile) for tile in whole.split(TILE)]
        if isinstance(given[0], Tensor):
            return torch.cat(given)[: len(rows)]
        return tuple(torch.cat(parts)[: len(rows)] for parts in zip(*given, strict=True))


def tile(network: nn.Module, routers: list[nn.Module]) -> None:
    """Exchange, in place, the linear layers and the given routers for tiled ones, and tile the placed experts."""
    names = {id(router) for router in routers}
    for name, module in list(network.named_modules()):
        if id(module) in names:
            exchange(network, name, Tiled(module))
        elif type(module) is nn.Linear:
            exchange(network, name, TiledLinear(module))
        elif isinstance(module, PlacedExperts):
            module.tiled = True
