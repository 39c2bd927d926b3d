"""CrossGET's matching and ensemble as its authors evaluate them, written from the description: the peer for speed.

The policy is the one of `intarsia.tokens.matching.complete`; here over keys of full width, with whole sorts, two
scatters of T x T masks and gathers of whole streams. One thing differs: the sort that ranks rows is stable. The two
members of a mutually nearest pair always tie, so with an unstable one the pairs depend on how it is implemented."""

from __future__ import annotations

import torch
from torch import Tensor


def reduce_as_published(
    stream: Tensor, sizes: Tensor, keys: Tensor, guide: Tensor, r: int, protected: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The stream [batch, token - r, width] and the sizes after one step (Shi et al. 2024, §3.2 and §3.3).

    - keys: [batch, token, width], heads side by side; guide: [batch, width], the query that importance is measured by.
    - protected: rows that are not touched."""
    batch, tokens, width = stream.shape
    rows = list(protected)
    with torch.no_grad():
        unit = keys / keys.norm(dim=-1, keepdim=True)
        similarity = unit @ unit.transpose(1, 2)
        inside = torch.eye(tokens, dtype=torch.bool, device=stream.device)
        similarity = similarity.masked_fill(inside, -torch.inf)
        similarity[:, rows] = -torch.inf
        similarity[:, :, rows] = -torch.inf
        importance = torch.cosine_similarity(guide[:, None], keys, dim=-1)
        # An edge counts in the row of its better-ranked end: a triangle, brought from ranks to rows, then to columns.
        order = similarity.max(dim=-1).values.argsort(dim=-1, descending=True, stable=True)
        triangle = torch.full((tokens, tokens), -torch.inf, device=stream.device).tril().expand(batch, -1, -1)
        wide = order[..., None].expand(-1, -1, tokens)
        mask = torch.empty_like(similarity).scatter(1, wide, triangle)
        mask = torch.empty_like(similarity).scatter(2, wide.transpose(1, 2), mask)
        priority = importance - (similarity + mask).max(dim=-1).values
        priority[:, rows] = torch.inf
        ranked = priority.argsort(dim=-1)
        source, rest = ranked[:, :r], ranked[:, r:].sort(dim=-1).values
        edges = similarity.gather(1, source[..., None].expand(-1, -1, tokens))
        edges = edges.gather(2, rest[:, None].expand(-1, r, -1))
        target = edges.argmax(dim=-1)
        of_target = rest.gather(1, target)
        weight = torch.stack([importance.gather(1, source), importance.gather(1, of_target)], -1).softmax(-1)

    def taken(index: Tensor) -> Tensor:
        return index[..., None].expand(-1, -1, width)

    merged, kept = stream.gather(1, taken(source)), stream.gather(1, taken(rest))
    size_a, size_b = sizes.gather(1, source), sizes.gather(1, rest)
    own = torch.ones_like(size_b).scatter_add(1, target, 2 * weight[..., 1] - 1)
    total = size_b.scatter_add(1, target, size_a)
    kept = kept * (own * size_b)[..., None]
    kept = kept.scatter_add(1, taken(target), merged * (2 * weight[..., 0] * size_a)[..., None])
    return kept / total[..., None], total
