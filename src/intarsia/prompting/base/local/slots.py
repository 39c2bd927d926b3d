"""`Slots`: keys and values of many rows side by side, each row at its own length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

GROWTH = 256  # positions that are added at a time


class Slots(Cache):
    """A cache for plain transformers networks in which every row has its own length.

    Keys lie in one tensor, [layer, slot, position, head, width], values in another. The last position of a slot is
    never read: what stands in for padding is written there. Before a forward, `place` says which slots its rows are and
    where its tokens stand; the network then writes and reads through `update`, as in any cache of transformers."""

    def __init__(self, layers: int, key: tuple[int, int], value: tuple[int, int], dtype: torch.dtype, device: Any):
        super().__init__(layers=[])
        self._shapes = (layers, key, value)
        self._dtype, self._device = dtype, device
        self.keys = self._room(0, 1, key)
        self.values = self._room(0, 1, value)
        self._slots: Tensor | None = None
        self._first = self._length = 0
        self._write = self._rows = torch.empty(0)

    @property
    def bytes(self) -> int:
        """Of all slots."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def bytes_per_token(self) -> int:
        """Of one position of one slot."""
        layers, key, value = self._shapes
        return layers * (key[0] * key[1] + value[0] * value[1]) * self._dtype.itemsize

    @property
    def positions(self) -> int:
        """Tokens that a slot holds."""
        return self.keys.shape[2] - 1

    def _room(self, slots: int, positions: int, shape: tuple[int, int]) -> Tensor:
        # Zeros: what is masked still meets a weight of zero, and zero times whatever memory held may be no number.
        size = (self._shapes[0], slots, positions, *shape)
        return torch.zeros(size, dtype=self._dtype, device=self._device)

    def grow(self, slots: int, positions: int) -> None:
        """Make room for at least so many."""
        have, held = self.keys.shape[1], self.positions
        if slots <= have and positions <= held:
            return
        slots = max(have, slots)
        positions = max(held, -(-positions // GROWTH) * GROWTH)
        for name, shape in (("keys", self._shapes[1]), ("values", self._shapes[2])):
            old, new = getattr(self, name), self._room(slots, positions + 1, shape)
            new[:, :have, :held] = old[:, :, :held]
            setattr(self, name, new)

    def clear(self) -> None:
        """Let go of all memory."""
        self.keys, self.values = self._room(0, 1, self._shapes[1]), self._room(0, 1, self._shapes[2])

    def place(self, slots: Sequence[int], write: Tensor, length: int) -> None:
        """What the next forward's rows are.

        - slots: one a row. write: [row, token], where each token is kept. length: positions that are read."""
        count = len(slots)
        self._first, self._length = slots[0], length
        run = list(slots) == list(range(slots[0], slots[0] + count))
        self._slots = None if run else torch.tensor(slots, device=self._device)
        self._rows = torch.tensor(slots, device=self._device)[:, None]
        self._write = write

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self._rows, self._write] = key_states.transpose(1, 2)
        values[self._rows, self._write] = value_states.transpose(1, 2)
        if self._slots is None:
            rows = slice(self._first, self._first + key_states.shape[0])
            keys, values = keys[rows, : self._length], values[rows, : self._length]
        else:
            keys, values = keys[:, : self._length][self._slots], values[:, : self._length][self._slots]
        return keys.transpose(1, 2), values.transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._length

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` positions of a slot, into another."""
        for tensor in (self.keys, self.values):
            tensor[:, target, :length] = tensor[:, source, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for tensor in (self.keys, self.values):
            held = tensor[:, one, :length].clone()
            tensor[:, one, :length] = tensor[:, other, :length]
            tensor[:, other, :length] = held

    def block(self, slot: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of a slot's positions: keys and values, [layer, position, head, width]."""
        return self.keys[:, slot, start:end].clone(), self.values[:, slot, start:end].clone()

    def put(self, slot: int, start: int, block: tuple[Tensor, Tensor]) -> None:
        """The inverse of `block`."""
        end = start + block[0].shape[1]
        self.keys[:, slot, start:end], self.values[:, slot, start:end] = block
