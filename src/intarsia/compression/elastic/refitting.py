"""What is left of a network makes good what went, by least squares (`compression.refitting`): down and o for the
neurons and heads, block after block on what the blocks below now give; the readers of the stream for its directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.elastic.choices import Choice
from intarsia.compression.elastic.sorting import blocks_of
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.linears import Linear, linears
from intarsia.compression.refitting import refit
from intarsia.compression.walking import Walk

if TYPE_CHECKING:
    from intarsia.models import Model


def refitted(supernet: Supernet, choice: Choice, windows: Sequence[Sequence[int]], ridge: float) -> Model:
    """As `supernet.slice`, refitted on windows of token ids."""
    _, neurons, heads, full = supernet.full
    wide = supernet.slice(supernet.choice(blocks=choice.blocks, width=choice.width))
    if choice.width < full:
        refit_readers(supernet, choice, wide, ridge)
    if set(choice.neurons) == {neurons} and choice.heads == heads:
        return wide
    blocks = blocks_of(wide, supernet.who)
    cuts = {}
    walk = Walk(wide, windows)
    for index in walk.blocks("refitting"):
        block = blocks[index]
        for part, last, count in (
            (block.attention, block.attention.out, choice.heads), (block.mlp, block.mlp.down, choice.neurons[index])
        ):  # fmt: skip
            if count < part.size:
                kept = part.columns(torch.arange(count))
                _silence(last, kept, walk.look([last])[last.name].moment, ridge)
                cuts |= part.cuts(torch.arange(count))
    small = supernet.slice(choice)
    mine = dict(small.network.named_parameters())
    with torch.no_grad():
        for name, tensor in wide.network.named_parameters():
            if name in cuts:
                dimension, numbers = cuts[name]
                tensor = tensor.index_select(dimension, numbers.to(tensor.device))
            mine[name].copy_(tensor)
    return small


@torch.no_grad()
def refit_readers(supernet: Supernet, choice: Choice, small: Model, ridge: float) -> None:
    """Refit, in a network of the choice's blocks and width, all that reads the stream, each layer on its own inputs."""
    assert supernet.narrow is not None
    whole = {layer.name: layer for layer in linears(supernet.narrow.model, head=True)}
    stem = f"{supernet.narrow.model.sites.main.path}."
    kept = torch.arange(choice.width)
    for layer in linears(small, head=True):
        name = layer.name
        if name.startswith(stem):
            number, _, rest = name.removeprefix(stem).partition(".")
            name = f"{stem}{choice.blocks[int(number)]}.{rest}"
        if name in supernet.moments:
            layer.set(refit(whole[name].weight, supernet.moments[name], kept, ridge))


def _silence(layer: Linear, kept: Tensor, moment: Tensor, ridge: float) -> None:
    """Give every input of a layer that is not `kept` weight zero, the others what makes good for it."""
    before = layer.weight.float().clone()
    new = torch.zeros_like(before)
    new[:, kept.to(before.device)] = refit(before, moment, kept.to(before.device), ridge)
    layer.set(new)
