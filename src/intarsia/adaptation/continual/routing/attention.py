"""Shared attentive learning and selection: a prompt's query against one key a task.

Source: Zhao et al. 2024 (SAPT), section 3 and released code: query = LayerNorm(SiLU(W_u W_d e)), e the largest of each
coordinate over the prompt's tokens; weights = softmax(keys . query / sqrt(width))."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from intarsia.adaptation.continual.routing.router import Router

BOTTLENECK = 100


class Attention(Router):
    """- width: of the embeddings; layers: 0 for one key a task (the paper), else a key for each of so many layers.

    Keys of earlier tasks are frozen; the projection goes on learning. The first task's key never gets a gradient: over
    one block the softmax is the constant 1."""

    kind = "attention"

    def __init__(self, width: int, layers: int = 0):
        super().__init__()
        self.width, self.layers = width, layers
        self.down = nn.Linear(width, BOTTLENECK, bias=False)
        self.up = nn.Linear(BOTTLENECK, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("keys", torch.zeros(0, max(1, layers), width), persistent=False)
        self.new: nn.Parameter | None = None
        self.requires_grad_(False)

    @property
    def count(self) -> int:
        """Of keys."""
        return len(self.keys) + (self.new is not None)

    def open(self) -> list[nn.Parameter]:
        """A key for a new task, drawn from U(-1, 1); what is trained: the key and the projection."""
        key = torch.rand(1, max(1, self.layers), self.width, device=self.keys.device) * 2 - 1
        self.new = nn.Parameter(key)
        self.requires_grad_(True)
        return [p for p in self.parameters() if p.requires_grad]

    def close(self) -> None:
        """The new key is old from now on."""
        assert self.new is not None
        self.keys = torch.cat([self.keys, self.new.detach()])
        self.new = None
        self.requires_grad_(False)

    def log_weights(self, pooled: Tensor) -> Tensor:
        """[row, block] or [row, layer, block]: logarithms of the weights."""
        query = self.norm(silu(self.up(self.down(pooled[:, 0].float()))))
        keys = self.keys if self.new is None else torch.cat([self.keys, self.new])
        scores = torch.einsum("rd,bld->rlb", query, keys) / self.width**0.5
        found = scores.log_softmax(-1)
        return found if self.layers else found[:, 0]

    def forward(self, pooled: Tensor) -> Tensor:
        return self.log_weights(pooled).exp()

    def save(self) -> dict[str, Tensor]:
        kept = {"keys": self.keys, "down": self.down.weight, "up": self.up.weight}
        kept |= {"norm.weight": self.norm.weight, "norm.bias": self.norm.bias, "layers": torch.tensor(self.layers)}
        return {name: value.detach() for name, value in kept.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.keys = tensors["keys"].clone().to(self.keys.device)
        with torch.no_grad():
            for name, parameter in (
                ("down", self.down.weight), ("up", self.up.weight),
                ("norm.weight", self.norm.weight), ("norm.bias", self.norm.bias),
            ):  # fmt: skip
                parameter.copy_(tensors[name])

    def forget(self, index: int) -> None:
        self.keys = torch.cat([self.keys[:index], self.keys[index + 1 :]])
