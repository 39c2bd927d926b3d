"""What `compiled.py` does, in torch: for other devices than a CPU, and where numba is not installed.

Work is cut into pieces so that no intermediate result is larger than `MOST` numbers."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 1 << 24


def l1(queries: Tensor, vectors: Tensor) -> Tensor:
    return torch.cdist(queries, vectors, p=1)


def l1_pull(queries: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    out = torch.empty_like(queries)
    for rows in _pieces(len(queries), len(vectors) * queries.shape[1]):
        sign = torch.where(queries[rows, None] > vectors, 1.0, -1.0).to(queries.dtype)
        out[rows] = torch.einsum("ij,ijk->ik", weights[rows], sign)
    return out


def modulus(queries: Tensor, vectors: Tensor) -> Tensor:
    half = queries.shape[1] // 2
    out = queries.new_empty(len(queries), len(vectors))
    for rows in _pieces(len(queries), len(vectors) * queries.shape[1]):
        apart = queries[rows, None] - vectors
        out[rows] = torch.hypot(apart[..., :half], apart[..., half:]).sum(-1)
    return out


def modulus_pull(queries: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    half = queries.shape[1] // 2
    out = torch.empty_like(queries)
    for rows in _pieces(len(queries), len(vectors) * queries.shape[1]):
        apart = queries[rows, None] - vectors
        size = (apart[..., :half].square() + apart[..., half:].square() + 1e-30).sqrt()
        apart /= torch.cat([size, size], -1)
        out[rows] = torch.einsum("ij,ijk->ik", weights[rows], apart)
    return out


def count_better(
    scores: Tensor, rows: Tensor, answers: Tensor, low: Tensor, high: Tensor, tails: Tensor, flags: Tensor, old: int
) -> Tensor:
    out = torch.empty(3, len(answers), dtype=torch.int64, device=scores.device)
    counts = high - low
    # The known answers of every question, one after the other: which answer each belongs to, and where it lies.
    owner = torch.repeat_interleave(torch.arange(len(answers), device=scores.device), counts)
    inside = torch.arange(len(owner), device=scores.device) - (counts.cumsum(0) - counts)[owner]
    known = low[owner] + inside
    columns, told = tails[known].long(), flags[known]
    value = scores[rows, answers]
    for piece in _pieces(len(answers), scores.shape[1]):
        block, at = scores[rows[piece]], value[piece, None]
        level = 2 * (block > at).int() + (block == at).int()
        before, every = level[:, :old].sum(1), level.sum(1)
        before = before - (answers[piece] < old).long()
        out[0, piece] = out[1, piece] = before
        out[2, piece] = every - 1
    use = (columns < scores.shape[1]) & (columns != answers[owner])
    owner, columns, told = owner[use], columns[use], told[use]
    found = scores[rows[owner], columns]
    level = 2 * (found > value[owner]).long() + (found == value[owner]).long()
    early = columns < old
    for i, mask in enumerate([early & (told & 1 > 0), early & (told & 2 > 0), told & 4 > 0]):
        out[i].index_add_(0, owner[mask], -level[mask])
    return out


def margin_distances(entities: Tensor, relations: Tensor, facts: Tensor, others: Tensor, heads: Tensor) -> Tensor:
    out = entities.new_empty(len(facts), 1 + others.shape[1])
    for rows in _pieces(len(facts), out.shape[1] * entities.shape[1]):
        out[rows] = _apart(entities, relations, facts[rows], others[rows], heads[rows]).abs().sum(-1)
    return out


def margin_pull(
    entities: Tensor,
    relations: Tensor,
    facts: Tensor,
    others: Tensor,
    heads: Tensor,
    weights: Tensor,
    to_entities: Tensor,
    to_relations: Tensor,
) -> None:
    width = entities.shape[1]
    for rows in _pieces(len(facts), (1 + others.shape[1]) * width):
        h, r, t = facts[rows].unbind(1)
        sign = torch.where(_apart(entities, relations, facts[rows], others[rows], heads[rows]) > 0, 1.0, -1.0)
        sign = sign.to(entities.dtype) * weights[rows, :, None]
        head = torch.cat([h[:, None], torch.where(heads[rows], others[rows], h[:, None])], 1)
        tail = torch.cat([t[:, None], torch.where(heads[rows], t[:, None], others[rows])], 1)
        to_entities.index_add_(0, head.flatten(), sign.reshape(-1, width))
        to_entities.index_add_(0, tail.flatten(), sign.reshape(-1, width), alpha=-1)
        to_relations.index_add_(0, r, sign.sum(1))


def _apart(entities: Tensor, relations: Tensor, facts: Tensor, others: Tensor, heads: Tensor) -> Tensor:
    """h + r - t of each fact and of each of its corruptions: [fact, 1 + other, width]."""
    h, r, t = entities[facts[:, 0]], relations[facts[:, 1]], entities[facts[:, 2]]
    other = entities[others]
    corrupt = torch.where(heads[..., None], other - (t - r)[:, None], (h + r)[:, None] - other)
    return torch.cat([(h + r - t)[:, None], corrupt], 1)


def _pieces(count: int, size: int) -> list[slice]:
    step = max(1, MOST // max(1, size))
    return [slice(i, min(count, i + step)) for i in range(0, count, step)]
