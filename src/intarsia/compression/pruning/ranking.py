"""What a block is worth: how far it turns the stream, and what the network says without it.

- influence: mean of 1 - cos(x, y) over tokens, x the stream below the block, y above it.
- divergence: mean KL of the next token, in nats, of what the whole network says against what it says without the block.

Influence takes one forward, and can err: a block that turns the stream little may write what all depends on.

Sources: Men et al. 2024, ShortGPT, arXiv 2403.03853, eq. 1; Kim et al. 2024, arXiv 2402.02834, §3.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.distillation.losses import forward_kl, log_probabilities
from intarsia.progress import track
from intarsia.sites import Batch, read, resume, run

if TYPE_CHECKING:
    from intarsia.models import Model

ROWS = 128  # of logits, in one step


@dataclass(frozen=True)
class Worth:
    """Of each block: influence, and divergence where that was measured."""

    influence: list[float]
    divergence: list[float] | None


def worth(model: Model, base: Model, batches: Sequence[Batch], *, divergence: bool) -> Worth:
    """What every block of `model` is worth on text. Divergence is from what `base` says: the network before anything
    was removed."""
    prefix, count = model.sites.main.prefix, len(model.sites.blocks)
    turned = torch.zeros(count, dtype=torch.float64)
    parted = torch.zeros(count, dtype=torch.float64)
    tokens = 0
    for batch in batches:
        acts = read(model, batch, [f"{prefix}layers.0.resid_pre", f"{prefix}layers.*.resid_post"])
        states = list(acts.tensors.values())
        mask = _mask(batch)
        tokens += int(mask.sum())
        for index in range(count):
            below, above = (state[mask].float() for state in states[index : index + 2])
            turned[index] += (1 - torch.cosine_similarity(below, above, dim=-1)).double().sum().cpu()
        if divergence:
            truth = run(base, batch).logits
            for index in track(range(count), "leaving out one block after the other"):
                logits = resume(model, acts, f"{prefix}layers.{index}", state=states[index]).logits
                parted[index] += kl(truth[mask], logits[mask])
    return Worth((turned / tokens).tolist(), (parted / tokens).tolist() if divergence else None)


def divergence(model: Model, base: Model, batches: Sequence[Batch]) -> float:
    """Mean KL of the next token, in nats, of what `base` says against what `model` says."""
    total, tokens = 0.0, 0
    for batch in batches:
        mask = _mask(batch)
        total += kl(run(base, batch).logits[mask], run(model, batch).logits[mask])
        tokens += int(mask.sum())
    return total / tokens


def kl(truth: Tensor, other: Tensor) -> float:
    """Sum over rows of KL(truth || other), in nats, from logits [row, vocabulary]."""
    total = 0.0
    for some, same in zip(truth.split(ROWS), other.split(ROWS), strict=True):
        total += float(forward_kl(log_probabilities(some), log_probabilities(same)).double().sum())
    return total


def _mask(batch: Batch) -> Tensor:
    """[row, token] the real tokens. `batches` of token ids always say so."""
    assert batch.mask is not None
    return batch.mask
