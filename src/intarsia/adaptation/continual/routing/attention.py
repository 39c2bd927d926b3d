"""Shared attentive learning and selection: a prompt's query against one key a task.

Source: Zhao et al. 2024 (SAPT), section 3 and released code: query = LayerNorm(SiLU(W_u W_d e)), e the largest of each
coordinate over the prompt's tokens; weights = softmax(keys . query / sqrt(width))."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

from intarsia.adaptation.continual.routing.router import Router

BOTTLENECK = 100
SHARED = ("down", "up", "scale", "shift")


class Attention(Router):
    """- width: of the embeddings; layers: 0 for one key a task (the paper), else a key for each of so many layers.
    - down [bottleneck, width], up [width, bottleneck], scale and shift [width]: the projection, which all tasks share
      and go on training. keys [task, layers or 1, width]: frozen once learned.

    The first task's key never gets a gradient: over one block the softmax is the constant 1."""

    kind = "attention"

    def __init__(self, width: int, layers: int = 0):
        super().__init__()
        self.width, self.layers = width, layers
        self.opened = False
        # Plain tensors, not layers: whoever walks over a network's layers (to quantize them, say) shall not find these.
        start = nn.Linear(width, BOTTLENECK, bias=False).weight, nn.Linear(BOTTLENECK, width, bias=False).weight
        for name, value in zip(SHARED, (*start, torch.ones(width), torch.zeros(width)), strict=True):
            self.register_buffer(name, value.detach().clone(), persistent=False)
        self.register_buffer("keys", torch.zeros(0, max(1, layers), width), persistent=False)
        self.new: nn.Parameter | None = None

    @property
    def count(self) -> int:
        """Of keys."""
        return len(self.keys) + (self.new is not None)

    def open(self) -> list[nn.Parameter]:
        """A key for a new task, drawn from U(-1, 1); what is trained: the key and the projection."""
        self.new = nn.Parameter(torch.rand(1, max(1, self.layers), self.width, device=self.keys.device) * 2 - 1)
        for name in SHARED:
            value = self._buffers.pop(name)
            assert value is not None
            self.register_parameter(name, nn.Parameter(value))
        return [self.new, *(getattr(self, name) for name in SHARED)]

    def close(self) -> None:
        """The new key is old from now on."""
        assert self.new is not None
        self.keys = torch.cat([self.keys, self.new.detach()])
        self.new = None
        for name in SHARED:
            value = self._parameters.pop(name)
            assert value is not None
            self.register_buffer(name, value.detach(), persistent=False)

    def log_weights(self, pooled: Tensor) -> Tensor:
        """[row, block] or [row, layer, block]: logarithms of the weights."""
        hidden = silu(linear(linear(pooled[:, 0].to(self.down), self.down), self.up))
        query = layer_norm(hidden, (self.width,), self.scale, self.shift)
        keys = self.keys if self.new is None else torch.cat([self.keys, self.new])
        scores = torch.einsum("rd,bld->rlb", query, keys) / self.width**0.5
        found = scores.log_softmax(-1)
        return found if self.layers else found[:, 0]

    def forward(self, pooled: Tensor) -> Tensor:
        return self.log_weights(pooled).exp()

    def save(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).detach() for name in ("keys", *SHARED)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name in ("keys", *SHARED):
            setattr(self, name, tensors[name].clone().to(self.keys.device))

    def forget(self, index: int) -> None:
        self.keys = torch.cat([self.keys[:index], self.keys[index + 1 :]])
