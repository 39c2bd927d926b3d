"""Importance by attention: how much one query, or the mean of several, looks at each token."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.sites.recomposing import Seen

CAP = 6.0
"""Attention sinks hold most of the attention and would leave nothing to tell the other tokens apart by."""


def attended(seen: Seen, queries: Tensor | None = None, bias: Tensor | None = None) -> Tensor | None:
    """[batch, token]: mean attention of the chosen queries over all heads, times the number of tokens that can be
    read, at most `CAP`. Only the rows of these queries are computed, never the whole pattern.

    - queries: [batch, query] indices of rows, -1 for none; None: the mean query over all tokens, for towers without a
      class token.
    - bias: [batch, token] log sizes.

    Detached: importance chooses, it is not trained through. None where attention cannot be seen."""
    if seen.q is None or seen.k is None:
        return None
    q, k = seen.q.detach().float(), seen.k.detach().float()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    mask = seen.mask
    if queries is None:
        q, chosen = q.mean(dim=2, keepdim=True), q.new_ones(len(q), 1)
        mask = None if mask is None or mask.shape[2] > 1 else mask
    else:
        index = queries.clamp(min=0)[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
        q, chosen = q.gather(2, index), (queries >= 0).float()
        if mask is not None and mask.shape[2] > 1:
            rows = queries.clamp(min=0)[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
            mask = mask.expand(len(q), -1, -1, -1).gather(2, rows)
    scores = torch.matmul(q, k.transpose(2, 3)) * seen.scaling
    if mask is not None:
        scores = scores + mask.float()
    if bias is not None:
        scores = scores + bias[:, None, None, :].float()
    pattern = torch.softmax(scores, dim=-1)
    readable = (pattern > 0).any(dim=1).float().sum(-1, keepdim=True)  # [batch, query, 1]
    looked = pattern.mean(dim=1) * readable
    weight = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
    return (looked * weight[..., None]).sum(1).clamp(max=CAP)
