"""What a prompt looks like to a router: pooled vectors of the frozen embedding table. No layer runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.measure.likelihood import length_batches, right_padded

TOKENS = 16384  # padded tokens that are embedded at a time


def device_of(module: nn.Module) -> torch.device:
    """Where a module is; a quantized one has no parameters."""
    return next(chain(module.parameters(), module.buffers())).device


def pool(embedded: Tensor, mask: Tensor) -> Tensor:
    """[row, 2, width]: the largest and the mean of each coordinate over the real tokens, from [row, token, width].

    Padding has no part in either, so that a prompt's weights do not depend on its batch."""
    real = mask.bool()[..., None]
    lowest = torch.finfo(embedded.dtype).min
    most = embedded.masked_fill(~real, lowest).amax(1)
    mean = embedded.masked_fill(~real, 0).float().sum(1) / real.sum(1).clamp(min=1)
    return torch.stack([most.float(), mean], 1)


def real_tokens(mask: Any, rows: int, tokens: int, device: torch.device) -> Tensor:
    """[row, token]: which tokens of a prompt are real, from whatever mask a network is given: none, [row, token], or
    the ready one of a static cache, [row, 1, query, key], of which the last token's row tells."""
    if isinstance(mask, dict):  # one for each kind of attention
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is not None and mask.dim() == 4 and mask.shape[-1] >= tokens and len(mask) in (1, rows):
        last = mask[:, 0, -1, :tokens]
        mask = (last if last.dtype is torch.bool else last == 0).expand(rows, -1)
    if mask is None or mask.dim() != 2 or mask.shape[1] != tokens:
        return torch.ones(rows, tokens, dtype=torch.long, device=device)
    return mask


@torch.no_grad()
def pooled_prompts(embedding: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """[prompt, 2, width] of prompts as token ids."""
    device = device_of(embedding)
    out: list[Tensor | None] = [None] * len(prompts)
    for numbers in length_batches([len(prompt) for prompt in prompts], TOKENS, 256):
        batch = right_padded([prompts[i] for i in numbers], 0)
        found = pool(embedding(batch["input_ids"].to(device)), batch["attention_mask"].to(device))
        for i, value in zip(numbers, found, strict=True):
            out[i] = value
    return torch.stack([value for value in out if value is not None])
