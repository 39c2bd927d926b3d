"""Importance by a cross token: how near each token's key lies to the query of the learned guide."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.sites.recomposing import Seen
from intarsia.tokens.importance.attended import CAP


def guided(seen: Seen, guide: Tensor, usable: Tensor) -> Tensor | None:
    """[batch, token]: cosine of the guide's query with each key, all heads as one vector (Shi et al. 2024, §3.2), then
    brought to mean 1 and deviation 1 over the usable tokens of each sample and kept within 0 and `CAP`: as it stands
    the cosine's scale is arbitrary, and with it the weight of guidance against similarity.

    - guide: [batch] the row that guides (its cross token; in a text tower the end of the text).
    - usable: [batch, token] bool.

    Detached. None where attention cannot be seen."""
    if seen.q is None or seen.k is None:
        return None
    q, k = seen.q.detach().float(), seen.k.detach().float()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    query = q.gather(2, guide[:, None, None, None].expand(-1, q.shape[1], 1, q.shape[3]))
    near = torch.einsum("bhqd,bhtd->bt", query, k)
    norms = query.square().sum((1, 3)).sqrt() * k.square().sum((1, 3)).sqrt()
    near = near / norms.clamp(min=1e-8)
    count = usable.sum(1, keepdim=True).clamp(min=1)
    mean = near.masked_fill(~usable, 0).sum(1, keepdim=True) / count
    spread = ((near - mean) ** 2).masked_fill(~usable, 0).sum(1, keepdim=True) / count
    return (1 + (near - mean) / spread.sqrt().clamp(min=1e-6)).clamp(0, CAP)
