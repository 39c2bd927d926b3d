"""`Plan`: which rank runs which expert for a token, from a placement."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.moe.placement.placement import Placement


class Plan:
    """A placement as tensors.

    A token is served by a copy where it is, if there is one; else by the device the placement names."""

    def __init__(self, placement: Placement, device: torch.device | str = "cpu"):
        self.first = torch.tensor(placement.device_of, device=device)
        self.held = torch.tensor(placement.table(), device=device)
        self.ranks = placement.devices

    def serving(self, layer: int, experts: Tensor, here: int | Tensor) -> Tensor:
        """[n, k] the rank that runs each chosen expert [n, k] of tokens that are on rank `here` (one, or [n])."""
        table = self.held[layer]
        local = table[here][experts] if isinstance(here, int) else table[here[:, None], experts]
        return torch.where(local, torch.as_tensor(here, device=experts.device).view(-1, 1), self.first[layer][experts])


def descending(weights: Tensor, experts: Tensor) -> tuple[Tensor, Tensor]:
    """Both [n, k] with the largest weight first (routers may leave them in any order)."""
    order = weights.argsort(dim=1, descending=True, stable=True)
    return weights.gather(1, order), experts.gather(1, order)
