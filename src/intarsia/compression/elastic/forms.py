"""`Form`: a full network, and what becomes of each of its tensors in a smaller one.

A smaller network is the beginning of every tensor of the blocks that stay, so what is left are views wherever that is
possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.elastic.choices import Choice
from intarsia.compression.elastic.rotating import Stream, lengths
from intarsia.compression.elastic.sorting import Block, blocks_of
from intarsia.compression.pruning.rebuilding import Move

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass
class Form:
    """A full network and how its tensors shrink. axes: tensor -> its dimension along the stream, those whose values the
    stream's length scales in `longer`, the embedding `table` among them; gains: the norms'. Empty: its width stays."""

    model: Model
    blocks: list[Block]
    longer: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, int] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    table: str = ""

    @classmethod
    def of_stream(cls, model: Model, stream: Stream, who: str) -> Form:
        """Of a network whose stream is turned, so that it can be narrower."""
        longer, other = stream.axes(model.network)
        table = next(name for name, module in model.network.named_modules() if module is stream.table)
        return cls(model, blocks_of(model, who), longer, other, stream.gains(model.network), f"{table}.weight")

    @property
    def width(self) -> int:
        """Of the full stream."""
        network: Any = self.model.network
        return int(network.get_input_embeddings().weight.shape[1])

    def move(self, choice: Choice, like: Any = None) -> Move:
        """What becomes of each tensor. like: where the width shrinks, a network of that width (`Fields.probe`)."""
        stem = f"{self.model.sites.main.path}."
        place = {str(old): str(new) for new, old in enumerate(choice.blocks)}
        cuts: dict[str, tuple[int, Tensor]] = {}
        for number, neurons in zip(choice.blocks, choice.neurons, strict=True):
            part = self.blocks[number]
            if neurons < part.mlp.size:
                cuts |= part.mlp.cuts(torch.arange(neurons))
            if choice.heads < part.attention.size:
                cuts |= part.attention.cuts(torch.arange(choice.heads))
        full = self.width
        longer, gain = lengths(choice.width, full)
        # A factor on the embedding's rows that follows from the width (Gemma) is made up for.
        scale = 1.0 if like is None else _factor(self._table()) / _factor(like.get_input_embeddings())

        def move(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
            new = name
            if name.startswith(stem):
                number, _, rest = name.removeprefix(stem).partition(".")
                if number not in place:
                    return None
                new = f"{stem}{place[number]}.{rest}"
            if name in cuts:
                tensor = _taken(tensor, *cuts[name])
            if choice.width < full:
                if name in self.longer:
                    times = longer * scale if name == self.table else longer
                    tensor = tensor.narrow(self.longer[name], 0, choice.width) * times
                elif name in self.gains:
                    shift = self.gains[name]
                    tensor = (tensor.narrow(0, 0, choice.width) + shift) * gain - shift
                elif name in self.other:
                    tensor = tensor.narrow(self.other[name], 0, choice.width)
            return new, tensor

        return move

    def shapes(self, choice: Choice, move: Move) -> dict[str, list[int]]:
        """[out, in] of the layers of the MLPs of blocks that are narrower than the widest, by their new names; nothing
        where blocks are alike."""
        shapes: dict[str, list[int]] = {}
        for number, neurons in zip(choice.blocks, choice.neurons, strict=True):
            if neurons == max(choice.neurons):
                continue
            part = self.blocks[number].mlp
            for layer in (*part.into, part.down):
                weight: Any = layer.module.weight
                moved = move(f"{layer.name}.weight", weight.to("meta"))
                assert moved is not None  # (the block stays)
                shapes[moved[0].removesuffix(".weight")] = list(moved[1].shape)
        return shapes

    def lay_buffers(self, new: Any, like: Any = None) -> None:
        """Buffers that are not saved, with the values that transformers will give them. like: as in `move`, for those
        that follow from the width."""
        mine = dict(self.model.network.named_buffers())
        small = {} if like is None else dict(like.named_buffers())
        for path, module in new.named_modules():
            for leaf, buffer in module._buffers.items():
                if buffer is None:
                    continue
                name = f"{path}.{leaf}" if path else leaf
                if name in small and small[name].shape == buffer.shape:
                    module._buffers[leaf] = small[name].clone()
                elif buffer.is_meta and name in mine:
                    module._buffers[leaf] = mine[name]

    def _table(self) -> Any:
        network: Any = self.model.network
        return network.get_input_embeddings()


def _taken(tensor: Tensor, dimension: int, numbers: Tensor) -> Tensor:
    """A view where the numbers are the first ones."""
    count = len(numbers)
    if count and int(numbers[-1]) == count - 1:
        return tensor.narrow(dimension, 0, count)
    return tensor.index_select(dimension, numbers.to(tensor.device))


@torch.no_grad()
def _factor(table: Any) -> float:
    """What an embedding multiplies its rows by."""
    row = int(table.weight.abs().sum(-1).argmax())
    given = table(torch.tensor([row], device=table.weight.device))[0].double()
    return float((given * table.weight[row].double()).sum() / table.weight[row].double().square().sum())
