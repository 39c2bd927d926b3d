"""The ensemble: what one row is made of that stands for several (Shi et al. 2024, "CrossGET", §3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.sites.recomposing import Step
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.survivors import rows_of, survivors

FORMS = ("convex", "official", "mean")


def combine(
    stream: Tensor,
    sizes: Tensor,
    pairs: Pairs,
    *,
    weights: Tensor | None = None,
    temperature: float | None = None,
    form: str = "convex",
    norm: bool = False,
    drop: Tensor | None = None,
) -> Step:
    """The stream after its sources went into their targets. Differentiable in `stream` and `weights`.

    - stream: [batch, token, width]; sizes: [batch, token] how many tokens a row stands for. A pair with a row of size 0
      is passed over.
    - weights: [batch, token] importance; temperature: what it is divided by (None: 1; infinite: it does not matter).
    - form: of a group's rows with sizes s and weights w, `convex` is the mean by s * exp(w / temperature) and `mean`
      that by s. `official` is what CrossGET's code computes (softmax over each pair of source and target);
      with unequal sizes its coefficients do not sum to one, and with several sources they may be negative.
    - norm: give a merged row the length of its longest member.
    - drop: [batch, token] bool, rows that go and are part of nothing afterwards (padding); in no pair.

    Without pairs the stream comes back as it is. Raises `BadInput` for an unknown form or a temperature that is not
    positive."""
    _check(form, temperature)
    source, target, valid = pairs.source, pairs.target, pairs.valid
    batch, old, width = stream.shape
    count = source.shape[1]
    if count == 0 and drop is None:
        place = torch.arange(old, device=stream.device).expand(batch, old)
        return Step(stream, place, place)
    real = torch.ones_like(source, dtype=torch.bool) if valid is None else valid
    given = sizes.gather(1, source), sizes.gather(1, target)
    real = real & (given[0] > 0) & (given[1] > 0)
    every = drop is None and bool(real.all())
    gone = torch.zeros(batch, old, dtype=torch.long, device=stream.device).scatter_add_(1, source, real.long()) > 0
    gone = gone if drop is None else gone | drop
    keep, new = survivors(gone, most=old - count if every else None)
    into = new.clone() if every else new.masked_fill(gone, -1)
    into = _pointing(into, source, new.gather(1, target), real)
    rows = rows_of(stream, keep, padded=not every)
    if count:
        # Half precision would round each source on its own.
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        kept, taken = _coefficients(sizes, pairs, real, weights, temperature or 1.0, form, rows.dtype)
        a, b = rows_of(stream, source).to(rows.dtype), rows_of(stream, target).to(rows.dtype)
        # The target's row takes a step towards each source: exact where they are equal, and only pairs are touched.
        change = taken[..., None] * (a - b)
        if kept is not None:
            change = change + kept[..., None] * b
        start = torch.arange(batch, device=stream.device)[:, None] * keep.shape[1]
        place = (new.gather(1, target).masked_fill(~real, 0) + start).flatten()
        rows.view(-1, width).index_add_(0, place, change.view(-1, width))
        if norm:
            rows = _as_long(rows, stream, keep, pairs, new, real)
        rows = rows.to(stream.dtype)
    return Step(rows, keep, into)


def _pointing(into: Tensor, source: Tensor, to: Tensor, real: Tensor) -> Tensor:
    """`into` with the new places of the sources; a pair that is none points nowhere."""
    spare = torch.cat([into, into[:, :1]], dim=1)
    return spare.scatter(1, source.masked_fill(~real, into.shape[1]), to)[:, :-1]


def _coefficients(
    sizes: Tensor,
    pairs: Pairs,
    real: Tensor,
    weights: Tensor | None,
    temperature: float,
    form: str,
    dtype: torch.dtype,
) -> tuple[Tensor | None, Tensor]:
    """For each pair [batch, pair] the source's coefficient in its target's new row, and by how much those of a group
    sum to more than one, in the share of this pair (None: they sum to one)."""
    source, target = pairs.source, pairs.target
    sizes = sizes.to(dtype)
    s_a, s_b = sizes.gather(1, source), sizes.gather(1, target)
    if form == "mean" or (form == "convex" and weights is None):
        s_a = s_a * real
        total = sizes.scatter_add(1, target, s_a).gather(1, target)
        return None, s_a / total.clamp(min=torch.finfo(dtype).tiny)
    weights = torch.zeros_like(sizes) if weights is None else weights.to(dtype) / temperature
    w_a, w_b = weights.gather(1, source), weights.gather(1, target)
    if form == "official":
        total = sizes.scatter_add(1, target, (s_a * real)).gather(1, target)
        of_a = torch.sigmoid(w_a - w_b)
        taken = 2 * of_a * s_a / total
        # s_b (1 + sum(2 w_b - 1)) / total, less what makes the coefficients sum to one: 1 - sum(taken).
        lone = (s_b * (1 - 2 * of_a) + 2 * of_a * s_a - s_a) / total
        return lone * real, taken * real
    # Exponentials relative to the largest of the group, so that none overflows and the sum is never zero.
    top = weights.scatter_reduce(1, target, w_a.masked_fill(~real, -torch.inf), "amax").detach().gather(1, target)
    g_a = s_a * torch.exp(w_a - top) * real
    own = s_b * torch.exp(w_b - top)
    total = torch.zeros_like(sizes).scatter_add(1, target, g_a).gather(1, target) + own
    return None, torch.where(real, g_a / total.where(real, torch.ones_like(total)), 0.0)


def _as_long(rows: Tensor, stream: Tensor, keep: Tensor, pairs: Pairs, new: Tensor, real: Tensor) -> Tensor:
    """Merged rows scaled to the length of their longest member."""
    lengths = torch.linalg.vector_norm(stream.to(rows.dtype), dim=2)
    longest = lengths.scatter_reduce(
        1, pairs.target, lengths.gather(1, pairs.source).masked_fill(~real, 0.0), "amax"
    ).gather(1, keep.clamp(min=0))
    merged = torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)
    merged.scatter_add_(1, new.gather(1, pairs.target).clamp(min=0).masked_fill(~real, 0), real.long())
    scale = longest / torch.linalg.vector_norm(rows, dim=2).clamp(min=1e-12)
    return rows * torch.where(merged > 0, scale, 1.0)[..., None]


def _check(form: str, temperature: float | None) -> None:
    if form not in FORMS:
        raise BadInput(f"unknown form of ensemble '{form}'; known: {', '.join(FORMS)}")
    if temperature is not None and not temperature > 0:
        raise BadInput(f"the ensemble's temperature is {temperature:g}: give a number above 0")
