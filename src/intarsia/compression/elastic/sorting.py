"""Neurons and key-value heads in the order of what they write, the best first, so that any number of the best is the
beginning of every tensor. A permutation within a block changes nothing that the network says.

Scores are those of `compression.narrow` (`pruning.parts`): the mean square of what a neuron, or the query heads of a
key-value head together, write to the stream on calibration text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from intarsia.compression.linears import Linear, linears
from intarsia.compression.pruning.parts import Attention, Mlp, attention_of, mlp_of
from intarsia.compression.pruning.rebuilding import prove, said, text_config
from intarsia.compression.statistics import LayerStats
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Block:
    """The parts of one block that can shrink."""

    mlp: Mlp
    attention: Attention

    @property
    def last(self) -> tuple[Linear, Linear]:
        """The layers whose inputs the neurons and the heads are: down, and o."""
        return self.mlp.down, self.attention.out


def blocks_of(model: Model, who: str) -> list[Block]:
    """Raises `BadInput` where blocks have no plain MLP and attention, or not all alike."""
    text = text_config(model, who)
    layers: list[list[Linear]] = [[] for _ in model.sites.blocks]
    for layer in linears(model):
        if layer.block is not None:
            layers[layer.block].append(layer)
    found = [Block(mlp_of(some, who), attention_of(some, text, who)) for some in layers]
    if len({(b.mlp.size, b.attention.size) for b in found}) > 1:
        raise BadInput(
            f"{who}: the blocks of {type(model.network).__name__} differ in neurons or heads; alike are wanted"
        )
    return found


@torch.no_grad()
def sort_parts(model: Model, blocks: Sequence[Block], stats: Mapping[str, LayerStats], who: str) -> None:
    """Permute a network in place. stats: of the inputs of every `Block.last`; their moments are permuted with it."""
    wanted = said(model.network)
    tensors = dict(model.network.named_parameters())
    for block in blocks:
        for part, layer in ((block.mlp, block.mlp.down), (block.attention, block.attention.out)):
            if layer.name not in stats:
                continue
            moment = stats[layer.name].moment
            order = part.scores(moment).argsort(descending=True, stable=True).cpu()
            for name, (dimension, numbers) in part.cuts(order).items():
                tensors[name].copy_(tensors[name].index_select(dimension, numbers.to(tensors[name].device)))
            columns = part.columns(order).to(moment.device)
            stats[layer.name].moment = moment[columns][:, columns]
    prove(wanted, model.network, who)
