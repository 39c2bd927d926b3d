"""What attention looks at, as a lesson: scores themselves, or how tokens' queries, keys and values relate.

Source: Jiao et al. 2020 (TinyBERT), §3.1, eq. 7; Wang et al. 2021 (MiniLMv2), §3.1-3.2, eq. 4-6."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from intarsia.compression.distillation.losses import forward_kl, wide
from intarsia.errors import BadInput


def score_mse(student: Tensor, teacher: Tensor, mask: Tensor, causal: bool) -> Tensor:
    """Mean over heads and pairs of real tokens of (A_S - A_T)^2, A the scores before the softmax.

    - student, teacher: [batch, query token, head, key token], with the same heads. mask: [batch, token] bool.
    - causal: only pairs whose key is not after the query, the others being masked in the network."""
    pairs = mask[:, :, None] & mask[:, None, :]
    if causal:
        pairs = pairs.tril()
    squares = (wide(student) - wide(teacher)).square().mean(2)
    return squares[pairs].mean()


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Mean over relation heads and real tokens of KL(R_T || R_S), R = softmax(X X^T / sqrt(d)) over real tokens, X the
    states [token, d] of a relation head.

    - student, teacher: [batch, token, head, head width], queries or keys or values; the heads are joined and cut anew
      into `heads`, so that both models have as many. mask: [batch, token] bool."""
    one, other = (_relations(states, mask, heads) for states in (student, teacher))
    # (padded keys are -inf in both: as a choice of probability 0 they count nothing)
    hidden = ~mask[:, None, None, :]
    one, other = one.masked_fill(hidden, 0.0), other.masked_fill(hidden, -torch.finfo(other.dtype).max)
    rows = forward_kl(other, one).movedim(1, -1)  # [batch, token, head]
    return rows[mask].mean()


def _relations(states: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Log R [batch, head, token, token]."""
    cut = wide(states).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2)
    products = cut @ cut.transpose(2, 3) / math.sqrt(cut.shape[-1])
    return products.masked_fill(~mask[:, None, None, :], -torch.inf).log_softmax(-1)


def relation_heads(widths: Sequence[int], wanted: int | None, most: int) -> int:
    """Heads that all these widths can be cut into: the `wanted` ones, or the most up to `most`.

    Raises `BadInput` where the wanted ones do not divide every width."""
    common = math.gcd(*widths)
    if wanted is None:
        return max(n for n in range(1, min(most, common) + 1) if common % n == 0)
    if common % wanted:
        raise BadInput(
            f"relation_heads is {wanted}: widths of {', '.join(map(str, sorted(set(widths))))} are not divisible by "
            f"it; give a divisor of {common}"
        )
    return wanted
