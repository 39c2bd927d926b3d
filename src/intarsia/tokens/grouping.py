"""Rows gathered into given groups, each its mean: for groups that are known and not looked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from intarsia.sites.recomposing import Step
from intarsia.tokens.survivors import survivors


def regroup(stream: Tensor, sizes: Tensor, target: Tensor) -> Step:
    """`stream` [batch, old, width] with every row added to the row `target` [batch, old] names (its own: it stays; -1:
    it is dropped): size-weighted means. A target must name itself."""
    place = torch.arange(target.shape[1], device=target.device)
    keep, new = survivors(target != place)
    gone = target < 0
    into = new.gather(1, target.clamp(min=0))
    weight = sizes.to(stream.dtype).masked_fill(gone, 0)[..., None]
    shape = (*keep.shape, stream.shape[2])
    index = into[..., None].expand_as(stream)
    rows = stream.new_zeros(shape).scatter_add(1, index, stream * weight)
    total = stream.new_zeros(*keep.shape, 1).scatter_add(1, into[..., None], weight)
    rows = rows / total.clamp(min=torch.finfo(stream.dtype).tiny)
    # A row that only rows of size 0 went into keeps what it was.
    own = stream.gather(1, keep.clamp(min=0)[..., None].expand(shape))
    return Step(torch.where(total > 0, rows, own), keep, into.masked_fill(gone, -1))


def after(first: Step, second: Step) -> Step:
    """Two steps as one."""
    keep = first.keep.gather(1, second.keep.clamp(min=0)).masked_fill(second.keep < 0, -1)
    into = second.into.gather(1, first.into.clamp(min=0)).masked_fill(first.into < 0, -1)
    return Step(second.rows, keep, into)


def together(steps: Sequence[tuple[Tensor, Step]]) -> Step:
    """One step of a batch from steps of some of its samples each: [sample] indices and their step. Samples with fewer
    rows are padded."""
    most = max(step.keep.shape[1] for _, step in steps)
    order = torch.argsort(torch.cat([where for where, _ in steps]))

    def stacked(parts: list[Tensor], fill: float) -> Tensor:
        wide = []
        for part in parts:
            padding = part.new_full((len(part), most - part.shape[1], *part.shape[2:]), fill)
            wide.append(torch.cat([part, padding], dim=1))
        return torch.cat(wide)[order]

    rows = stacked([step.rows for _, step in steps], 0.0)
    keep = stacked([step.keep for _, step in steps], -1)
    return Step(rows, keep, torch.cat([step.into for _, step in steps])[order])
