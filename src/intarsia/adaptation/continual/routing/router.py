"""`Router`: from a prompt's pooled vectors to weights of the blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput


class Router(nn.Module):
    """What decides, and what of it is saved.

    `kind` names it in a saved bundle. Its tensors follow the network to a device, and keep their own precision: tasks
    that rounding would mix up stay apart when the network is halved."""

    kind = ""

    def forward(self, pooled: Tensor) -> Tensor:
        """[row, block] weights, or [row, layer, block], from [row, 2, width]."""
        raise NotImplementedError

    def row(self, index: int) -> Tensor | None:
        """[block] what task `index` uses, where that is one row for all its prompts."""
        return None

    def save(self) -> dict[str, Tensor]:
        """All that is needed to make it again, by name."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse, in place."""

    def forget(self, index: int) -> None:
        """Take out block `index`."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)


class Same(Router):
    """The same weights for every prompt: one block (1), or several that are added up (1, 1, ...)."""

    kind = "same"

    def __init__(self, blocks: int = 0):
        super().__init__()
        self.blocks = blocks

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled.new_ones(len(pooled), self.blocks)

    def row(self, index: int) -> Tensor | None:
        return torch.ones(self.blocks)

    def save(self) -> dict[str, Tensor]:
        return {"blocks": torch.tensor(self.blocks)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.blocks = int(tensors["blocks"])

    def forget(self, index: int) -> None:
        self.blocks -= 1


class ByName(Router):
    """Only whoever knows the task can say which block: for methods that need a task's name."""

    kind = "name"

    def forward(self, pooled: Tensor) -> Tensor:
        raise BadInput("these adapters need the name of the task: give --task, or run inside `skills.using(TASK)`")
