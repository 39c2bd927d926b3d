"""What a prompt looks like to a router: pooled vectors of the frozen embedding table. No layer runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 256


def device_of(module: nn.Module) -> torch.device:
    """Where a module is; a quantized one has no parameters."""
    return next(chain(module.parameters(), module.buffers())).device


def pool(embedded: Tensor, mask: Tensor) -> Tensor:
    """[row, 2, width]: the largest and the mean of each coordinate over the real tokens, from [row, token, width].

    Padding has no part in either, so that a prompt's weights do not depend on its batch."""
    real = mask.bool()[..., None]
    lowest = torch.finfo(embedded.dtype).min
    most = embedded.masked_fill(~real, lowest).amax(1)
    mean = embedded.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)
    return torch.stack([most, mean], 1).float()


@torch.no_grad()
def pooled_prompts(embedding: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """[prompt, 2, width] of prompts as token ids."""
    device = device_of(embedding)
    out = []
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), BATCH):
        rows = [prompts[i] for i in order[start : start + BATCH]]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        out.append(pool(embedding(ids), mask))
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order, dtype=torch.long)] = torch.arange(len(order))
    return torch.cat(out)[back.to(device)]
