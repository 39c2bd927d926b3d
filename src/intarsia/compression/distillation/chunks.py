"""Losses over the vocabulary, a few tokens at a time: the logits of a whole batch are never in memory, of no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from intarsia.compression.distillation.losses import Kept, LogitLoss, forward_kl, log_probabilities
from intarsia.models import Model
from intarsia.sites import unembed

ROWS = 64

Taught = Callable[[slice], Tensor | Kept]
"""The teacher's logits [row, choice] (or what was kept of it) at a range of rows."""


def logits_of(model: Model, states: Tensor, choices: int) -> Tensor:
    """The first `choices` logits [row, choice] of states after the last block [row, width]."""
    return unembed(model, states)[..., :choices]


def chunked(
    student: Model,
    states: Tensor,
    taught: Taught,
    targets: Tensor,
    loss: LogitLoss,
    choices: int,
    total: int,
    also: Tensor | None = None,
) -> Iterator[Tensor]:
    """Parts of sum_row loss / total, as scalars. Each has to be differentiated before the next is asked for.

    - states: [row, width], the student's after its last block, in the graph. targets: [row]. also: a further loss, of
      the same graph.

    What a part says of the states is gathered at a leaf in between, and the last part, whose value is that of `also`,
    hands it to the network below in one piece: so no part keeps its logits, and nothing is computed twice."""
    leaf = states.detach().requires_grad_()
    for start in range(0, len(states), ROWS):
        some = slice(start, start + ROWS)
        with torch.no_grad():
            there = taught(some)
        yield loss(there, logits_of(student, leaf[some], choices), targets[some]).sum() / total
    assert leaf.grad is not None, "a part was not differentiated"
    gathered = (states * leaf.grad).sum()
    gathered = gathered - gathered.detach()
    yield gathered if also is None else gathered + also


@torch.no_grad()
def distance(student: Model, states: Tensor, taught: Callable[[slice], Tensor], choices: int) -> float:
    """sum_row KL(teacher || student) in nats, at temperature 1; states [row, width] of the student."""
    total = 0.0
    for start in range(0, len(states), ROWS):
        some = slice(start, start + ROWS)
        mine = log_probabilities(logits_of(student, states[some], choices))
        total += forward_kl(log_probabilities(taught(some)).to(mine), mine).double().sum().item()
    return total
