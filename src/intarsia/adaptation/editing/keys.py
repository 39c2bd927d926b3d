"""Keys: what enters a down projection at the last token of a subject, in the mean over prefixes (ROME, eq. 3).

Networks whose tokenizer puts nothing before a text treat its first tokens as no others: the key of a subject that
stands there is then far from those with a prefix, and a mean of both would be like neither. Such a prompt gets a key of
its own, with the same change of the value; all others are one mean, as in the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.adaptation.editing.exact import exact
from intarsia.adaptation.editing.wording import Row
from intarsia.measure.likelihood import length_batches
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS = 2048  # padded tokens in one forward
APART = 0.8  # cosine below which the bare prompt's key is not that of the prompt within a text


@dataclass(frozen=True)
class Group:
    """Rows that share a key. edit: number of the edit that they belong to."""

    edit: int
    rows: tuple[Row, ...]


@torch.no_grad()
def at_subject(model: Model, rows: Sequence[Row], site: str, task: str = "") -> Tensor:
    """What stands at a site at each row's subject: [row, ...] float64.

    Rows are run up to their subject alone, and only up to the site's layer."""
    found: list[Tensor | None] = [None] * len(rows)
    batches = length_batches([row.subject + 1 for row in rows], TOKENS)
    for numbers in track(batches, task) if task else batches:
        acts = read(model, [list(rows[i].to_subject()) for i in numbers], site)
        for i, at in zip(numbers, exact(acts.last(site)), strict=True):
            found[i] = at
    return torch.stack(found)  # type: ignore[arg-type]


def grouped(model: Model, rows: Sequence[Sequence[Row]], site: str) -> list[Group]:
    """Each edit's rows, the bare prompt first, as one group, or as two where the bare prompt's key is apart."""
    flat = at_subject(model, [row for group in rows for row in group], site)
    groups = []
    for number, (mine, keys) in enumerate(zip(rows, flat.split([len(r) for r in rows]), strict=True)):
        alone = len(mine) > 1 and float(torch.cosine_similarity(keys[0], keys[1:].mean(0), dim=0)) < APART
        parts = (mine[:1], mine[1:]) if alone else (mine,)
        groups += [Group(number, tuple(part)) for part in parts]
    return groups


def means(model: Model, groups: Sequence[Group], site: str) -> Tensor:
    """What stands at a site at the subject in the mean over a group's rows: [group, ...] float64."""
    flat = at_subject(model, [row for group in groups for row in group.rows], site)
    return torch.stack([part.mean(0) for part in flat.split([len(group.rows) for group in groups])])
