"""Which layers a method works on: the linear layers of the blocks, without those a person wants left alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from intarsia.compression.linears import EXPERTS, Linear, expert_tensors, linears
from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from intarsia.models import Model


def targets(
    model: Model, verb: str, skip: Iterable[str], named: Iterable[str] = (), *, main_only: bool = False
) -> tuple[list[Linear], dict[str, str]]:
    """The linear layers of all blocks, and what is left as it is, with the reason.

    - verb: what is done to them. skip, named: patterns of names; each must be some layer's. main_only: only the tower
      that reads text.

    Raises `BadInput` for a pattern that matches nothing, and where no layer is left. Warns of experts in one tensor."""
    skip = tuple(skip)
    patterns = (*skip, *named)
    inside = {m for tower in model.sites.towers.values() for block in tower.blocks for m in block.modules()}
    chosen, kept = [], {}
    matched: set[str] = set()
    for layer in linears(model):
        mine = [p for p in patterns if fnmatchcase(layer.name, p)]
        matched.update(mine)
        if any(p in skip for p in mine):
            kept[layer.name] = "skip"
        elif layer.module not in inside:
            kept[layer.name] = "outside of the blocks"
        elif main_only and layer.block is None:
            kept[layer.name] = "not in the tower that reads text"
        else:
            chosen.append(layer)
    if unknown := [p for p in patterns if p not in matched]:
        raise BadInput(f"no linear layer is called '{unknown[0]}': a pattern like '*.down_proj' is wanted")
    if not chosen:
        raise BadInput(f"nothing to {verb}: no linear layer of a block is left after `skip`")
    if experts := expert_tensors(model.network):
        kept |= dict.fromkeys(experts, EXPERTS)
        warnings.warn(f"{verb}: the experts of this network stay as they are, only its other layers change", Note, 4)
    return chosen, kept
