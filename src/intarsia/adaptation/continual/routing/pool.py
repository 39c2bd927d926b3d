"""A pool of prompts, of which an input takes those whose keys are most like it (Wang et al. 2022, L2P)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from intarsia.adaptation.continual.routing.router import Router

TAKEN = 3


class Pool(Router):
    """- keys: [prompt, width]. The query is the mean of the input's token embeddings."""

    kind = "pool"

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer("keys", torch.rand(size, width) * 2 - 1, persistent=False)
        self.new: nn.Parameter | None = None

    def open(self) -> list[nn.Parameter]:
        """Keys that are trained."""
        self.new = nn.Parameter(self.keys.clone())
        return [self.new]

    def close(self) -> None:
        """Freeze them."""
        assert self.new is not None
        self.keys, self.new = self.new.detach(), None

    def likeness(self, pooled: Tensor) -> Tensor:
        """[row, prompt] cosines."""
        keys = self.keys if self.new is None else self.new
        return normalize(pooled[:, 1], dim=1) @ normalize(keys, dim=1).T

    def forward(self, pooled: Tensor) -> Tensor:
        """[row, prompt] 1 for those that are taken."""
        likeness = self.likeness(pooled).detach()
        best = likeness.topk(min(TAKEN, likeness.shape[1]), dim=1).indices
        return torch.zeros_like(likeness).scatter(1, best, 1.0)

    def save(self) -> dict[str, Tensor]:
        return {"keys": (self.keys if self.new is None else self.new).detach()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.keys = tensors["keys"].clone().to(self.keys.device)
