"""How alike the rows are that are merged: kept only while somebody looks (`tokens.show`)."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.tokens.matching.pairs import Pairs


@torch.no_grad()
def likeness(metric: Tensor, pairs: Pairs) -> Tensor:
    """[batch, pair] cosine between source and target in `metric` [batch, token, width]; NaN for what is no pair."""
    unit = torch.nn.functional.normalize(metric.float(), dim=-1, eps=1e-8)
    width = unit.shape[-1]
    one, other = (unit.gather(1, at[..., None].expand(-1, -1, width)) for at in (pairs.source, pairs.target))
    cosine = (one * other).sum(-1)
    return cosine if pairs.valid is None else cosine.masked_fill(~pairs.valid, torch.nan)
