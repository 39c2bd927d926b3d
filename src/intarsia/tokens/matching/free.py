"""What all matchers share: the rows that may be paired, taken out of the batch chunk by chunk, and put back."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.similarity import unit_rows
from intarsia.tokens.survivors import rows_of

CHUNK = 2**20
"""Similarities that are worked on at a time on a CPU: few enough to stay in its cache."""


@dataclass(frozen=True)
class Task:
    """Some samples' free rows, side by side from the left; indices are among them.

    - rows: [batch, row, width] unit rows, float32.
    - counts: [batch] how many rows are real; None: all.
    - wanted: [batch] how many pairs each sample is to give: at most half of its rows.
    - most: the largest of `wanted`.
    - importance: [batch, row] or None; strength: what it weighs against similarity.
    - later: whether a row may only be merged into one behind it."""

    rows: Tensor
    counts: Tensor | None
    wanted: Tensor
    most: int
    importance: Tensor | None
    strength: float
    later: bool

    @property
    def absent(self) -> Tensor | None:
        """[batch, row] bool: rows that only fill up the batch."""
        if self.counts is None:
            return None
        return torch.arange(self.rows.shape[1], device=self.rows.device) >= self.counts[:, None]


Found = tuple[Tensor, Tensor, Tensor | None]
"""Source, target [batch, most] and score; what stands behind the first `wanted` of a sample is not looked at."""


@torch.no_grad()
def matched(
    decide: Callable[[Task], Found],
    metric: Tensor,
    r: int,
    *,
    blocked: Tensor | None,
    importance: Tensor | None,
    strength: float,
    later: bool,
) -> Pairs:
    """Run `decide` on the rows of `metric` that are not blocked. Each sample is decided on its own."""
    _check(metric, r, blocked, importance, strength)
    batch = len(metric)
    index, counts, low, high = _free(metric, blocked)
    most = min(operator.index(r), high // 2)
    if most == 0 or batch == 0:
        none = torch.zeros(batch, 0, dtype=torch.long, device=metric.device)
        return Pairs(none, none, None, torch.zeros(batch, 0, device=metric.device))
    if importance is not None:
        importance = importance.detach().float().nan_to_num(0.0)
    if index is not None:
        metric = rows_of(metric, index)
        importance = None if importance is None else importance.gather(1, index)
    rows = unit_rows(metric)
    uniform = low == high
    half = torch.full((batch,), high // 2, device=metric.device) if counts is None else counts // 2
    wanted = half.clamp(max=most)
    step = max(1, CHUNK // high**2) if metric.device.type == "cpu" else batch
    found = [
        decide(
            Task(
                rows[i : i + step],
                None if uniform or counts is None else counts[i : i + step],
                wanted[i : i + step],
                most,
                None if importance is None else importance[i : i + step],
                strength,
                later,
            )
        )
        for i in range(0, batch, step)
    ]
    source, target = (torch.cat([part[i] for part in found]) for i in (0, 1))  # type: ignore[misc]
    score = None if found[0][2] is None else torch.cat([part[2] for part in found])  # type: ignore[misc]
    valid = None if uniform else torch.arange(most, device=metric.device) < wanted[:, None]
    if valid is not None:
        source, target = source.masked_fill(~valid, 0), target.masked_fill(~valid, 0)
        score = None if score is None else score.masked_fill(~valid, 0.0)
    if index is not None:
        source, target = index.gather(1, source), index.gather(1, target)
    return Pairs(source, target, valid, score)


def _free(metric: Tensor, blocked: Tensor | None) -> tuple[Tensor | None, Tensor | None, int, int]:
    """Indices of the free rows [batch, most] and how many there are in each sample, the fewest and the most of them."""
    batch, tokens = metric.shape[:2]
    if blocked is None or batch == 0:
        return None, None, tokens, tokens
    counts = (~blocked).sum(1)
    low, high = (int(n) for n in torch.aminmax(counts))
    if low == tokens:
        return None, None, tokens, tokens
    place = torch.arange(tokens, device=blocked.device).expand_as(blocked)
    # Blocked rows are all written to one place behind the others, which is cut off.
    to = (torch.cumsum(~blocked, dim=1) - 1).masked_fill(blocked, tokens)
    index = torch.zeros(batch, tokens + 1, dtype=torch.long, device=blocked.device).scatter_(1, to, place)
    return index[:, :high], counts, low, high


def _check(metric: Tensor, r: int, blocked: Tensor | None, importance: Tensor | None, strength: float) -> None:
    if metric.dim() != 3:
        raise BadInput(f"the metric has shape {tuple(metric.shape)}: [batch, token, width] is wanted")
    if r < 0:
        raise BadInput(f"r is {r}: give how many rows to merge away, 0 or more")
    for name, given in (("blocked", blocked), ("importance", importance)):
        if given is not None and given.shape != metric.shape[:2]:
            raise BadInput(
                f"{name} has shape {tuple(given.shape)}: [batch, token] = {tuple(metric.shape[:2])} is wanted"
            )
    if blocked is not None and blocked.dtype != torch.bool:
        raise BadInput(f"blocked holds {blocked.dtype}: give bool, true for rows that stay themselves")
    if not 0 <= strength < float("inf"):
        raise BadInput(f"strength is {strength:g}: give the weight of importance, 0 or more")
