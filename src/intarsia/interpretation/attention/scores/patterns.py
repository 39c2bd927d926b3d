"""Attention patterns of a text that is explained, and the positions where its choice is read off."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation.explained import Explained


def pattern_sites(explained: Explained) -> list[str]:
    """The names of the patterns of all blocks that have attention."""
    sites = explained.model.sites
    prefix = sites.main.prefix
    names = [f"{prefix}layers.{i}.pattern" for i in range(len(sites.blocks))]
    if not (found := [name for name in names if name in sites]):
        raise BadInput(f"no attention patterns can be read in {type(sites.network).__name__}: print(model.sites)")
    return found


@torch.no_grad()
def patterns(explained: Explained, *more: str) -> list[dict[str, Tensor]]:
    """For each block, `pattern` [head, query, key] and more of its sites, for the prompt and the choice's tail."""
    names = pattern_sites(explained)
    wanted = [[name, *(name.removesuffix("pattern") + site for site in more)] for name in names]
    _, acts = explained.value_with([site for block in wanted for site in block])
    out = []
    for block in wanted:
        kept = {site.rpartition(".")[2]: acts[site][0] for site in block}
        kept["pattern"] = kept["pattern"].transpose(0, 1).double().cpu()
        out.append(kept)
    return out


def readouts(explained: Explained, pattern: Tensor) -> list[int]:
    """Where the choice is read off: the last token before each of its steps; for a classifier the last token, or the
    first where tokens see what follows them. pattern: [head, query, key] of any block."""
    steps = explained.choices[explained.choice].steps
    if steps:
        return sorted({len(explained.ids) - 1 + depth for depth, _, _ in steps})
    causal = not bool(pattern.triu(1).any())
    return [len(explained.ids) - 1 if causal else 0]
