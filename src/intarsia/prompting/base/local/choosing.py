"""The next tokens of many rows from their logits. What one row gets does not depend on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHORTLIST = 1024  # likely tokens among which the share of top_p is looked for first


@dataclass(frozen=True)
class Draw:
    """How a row's token is drawn. share: where in the distribution, in [0, 1): its random number."""

    temperature: float
    top_k: int
    top_p: float
    share: float


def choose(logits: Tensor, draws: Sequence[Draw | None]) -> list[int]:
    """A token a row. logits: [row, vocabulary]; draws: None takes the most likely token, the first where some tie.

    Tokens are drawn by the inverse of the distribution function: one random number a token, whatever the vocabulary.
    `top_k` is applied before `top_p`, which is of what `top_k` left."""
    ids = logits.argmax(-1).tolist()
    drawn = [i for i, draw in enumerate(draws) if draw is not None]
    if not drawn:
        return ids
    some = [draws[i] for i in drawn]
    scaled = logits[drawn].float() / torch.tensor([[d.temperature] for d in some], device=logits.device)
    plain = [i for i, d in enumerate(some) if not d.top_k and d.top_p >= 1]
    if plain:
        shares = [some[i].share for i in plain]
        for i, token in zip(plain, _inverse(scaled[plain].softmax(-1, dtype=torch.float64), shares), strict=True):
            ids[drawn[i]] = token
    cut = [i for i, d in enumerate(some) if d.top_k or d.top_p < 1]
    if cut:
        for i, token in zip(cut, _shortlisted(scaled[cut], [some[i] for i in cut]), strict=True):
            ids[drawn[i]] = token
    return ids


def _shortlisted(scaled: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Draws of rows that are cut by `top_k` or `top_p`. The whole vocabulary is sorted only where it must be."""
    width = min(SHORTLIST, scaled.shape[1])
    values, tokens = scaled.topk(width, -1)
    whole = torch.logsumexp(scaled.double(), -1)
    out: list[int] = []
    for i, draw in enumerate(draws):
        row, order = values[i], tokens[i]
        k = draw.top_k or scaled.shape[1]
        if k <= width:
            row, order = row[:k], order[:k]
            weights = row.softmax(-1, dtype=torch.float64)
        else:
            weights = (row.double() - whole[i]).exp()
            if draw.top_k or float(weights.sum()) < draw.top_p:
                row, order = scaled[i].sort(descending=True, stable=True)
                row, order = row[:k], order[:k]
                weights = row.softmax(-1, dtype=torch.float64)
        if draw.top_p < 1:
            # A token belongs to the fewest that have the share where those before it do not have it yet.
            count = max(1, int(((weights.cumsum(0) - weights) < draw.top_p).sum()))
            weights, order = weights[:count], order[:count]
        out.append(int(order[_inverse(weights[None], [draw.share])[0]]))
    return out


def _inverse(weights: Tensor, shares: Sequence[float]) -> list[int]:
    """Where the distribution function of each row passes its share. weights: [row, token] float64, any scale."""
    sums = weights.cumsum(-1)
    wanted = torch.tensor(shares, dtype=torch.float64, device=weights.device)[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True)[:, 0]
    return found.clamp(max=weights.shape[1] - 1).tolist()


def penalise(row: Tensor, counts: dict[int, int], presence: float, frequency: float) -> None:
    """OpenAI's penalties, in place: `presence` once, `frequency` as often as a token was made. row: [vocabulary]."""
    if not counts:
        return
    tokens = torch.tensor(list(counts), device=row.device)
    times = torch.tensor(list(counts.values()), dtype=row.dtype, device=row.device)
    row[tokens] -= presence + frequency * times


def log_probabilities(row: Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Of a token, and of the `top` likely ones, best first, under a row of logits as the model gave them."""
    logs = torch.log_softmax(row.double(), -1)
    values, tokens = logs.topk(min(top, len(logs))) if top else (logs[:0], logs[:0].long())
    return float(logs[token]), list(zip(tokens.tolist(), values.tolist(), strict=True))
