"""Keys and values of many requests, and the views of them that a network's attention reads as its cache.

Whatever the attention hands its cache is kept: keys and values of all heads, of fewer (grouped heads), or a latent and
a position key (MLA); widths are seen at the first token of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

Pair = tuple[Tensor, Tensor]


class Store:
    """Rows of keys and values in pools that grow; every request has a list of slots, one for a token.

    Slot 0 is nobody's: padding reads it."""

    def __init__(self, layers: int, device: torch.device | str = "cpu"):
        self.device = device
        self._pools: list[Pair | None] = [None] * layers
        self._slots: dict[int, list[int]] = {}
        self._free: list[int] = []
        self._made = 1

    def __contains__(self, request: int) -> bool:
        return request in self._slots

    def extend(self, request: int, tokens: int) -> None:
        """Room for more tokens of a request, new or known."""
        taken = self._slots.setdefault(request, [])
        for _ in range(tokens):
            if self._free:
                taken.append(self._free.pop())
            else:
                taken.append(self._made)
                self._made += 1

    def drop(self, request: int) -> None:
        """Forget a request."""
        self._free.extend(reversed(self._slots.pop(request, [])))

    def length(self, request: int) -> int:
        """Tokens there is room for."""
        return len(self._slots[request])

    def newest(self, request: int) -> int:
        """The slot of its last token."""
        return self._slots[request][-1]

    def slots(self, request: int) -> Tensor:
        """[token] int64."""
        return torch.tensor(self._slots[request], device=self.device)

    def table(self, requests: Sequence[int]) -> Tensor:
        """[request, token] slots, padded on the left with 0, so that every row ends with its last token."""
        longest = max(self.length(r) for r in requests)
        return torch.tensor(
            [[0] * (longest - self.length(r)) + self._slots[r] for r in requests], device=self.device
        )  # fmt: skip

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Keys and values [row, head, width] into slots [row]."""
        pool = self._pool(layer, keys, values)
        pool[0].index_copy_(0, slots, keys)
        pool[1].index_copy_(0, slots, values)

    def read(self, layer: int, slots: Tensor) -> Pair:
        """Keys and values of slots [...]: [..., head, width]."""
        pool = self._pools[layer]
        assert pool is not None
        keys, values = (p.index_select(0, slots.flatten()) for p in pool)
        return keys.unflatten(0, slots.shape), values.unflatten(0, slots.shape)

    @property
    def layers(self) -> int:
        """How many layers keep keys and values."""
        return len(self._pools)

    def width(self, layer: int) -> int:
        """Bytes of a token's key and value in a layer."""
        pool = self._pools[layer]
        assert pool is not None
        return sum(p[0].numel() * p.element_size() for p in pool)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return sum(map(self.width, range(self.layers)))

    def pack(self, request: int) -> Tensor:
        """All keys and values of a request, as bytes."""
        slots = self.slots(request)
        read = [self.read(layer, slots) for layer in range(self.layers)]
        return torch.cat([t.contiguous().view(torch.uint8).flatten() for pair in read for t in pair])

    def unpack(self, request: int, data: Tensor) -> None:
        """Put bytes that `pack` gave into the request's slots."""
        slots, start = self.slots(request), 0
        for layer in range(self.layers):
            pair = []
            for pool in self._pools[layer] or ():
                size = len(slots) * pool[0].numel() * pool.element_size()
                part = data[start : start + size].clone().view(pool.dtype)
                pair.append(part.view(len(slots), *pool.shape[1:]))
                start += size
            self.write(layer, slots, *pair)

    def rows(self, layer: int, data: Tensor) -> Pair:
        """Keys and values [n, head, width] of a layer from rows of bytes [n, bytes], the key's first."""
        pool = self._pools[layer]
        assert pool is not None
        cut = pool[0][0].numel() * pool[0].element_size()
        pair = data[:, :cut], data[:, cut:]
        keys, values = (
            part.clone(memory_format=torch.contiguous_format).view(p.dtype).view(len(data), *p.shape[1:])
            for part, p in zip(pair, pool, strict=True)
        )
        return keys, values

    def prepare(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Learn what a token's keys and values [..., head, token, width] look like."""
        self._pool(layer, keys[0].transpose(0, 1)[:1], values[0].transpose(0, 1)[:1])

    def _pool(self, layer: int, keys: Tensor, values: Tensor) -> Pair:
        pool = self._pools[layer]
        if pool is None or len(pool[0]) < self._made:
            size = max(64, 2 * self._made)
            grown = tuple(t.new_zeros(size, *t.shape[1:]) for t in (keys, values))
            if pool is not None:
                for new, old in zip(grown, pool, strict=True):
                    new[: len(old)] = old
            pool = self._pools[layer] = (grown[0], grown[1])
        return pool

    @property
    def bytes(self) -> int:
        """Memory of the pools."""
        return sum(t.numel() * t.element_size() for pool in self._pools if pool is not None for t in pool)


class Seen(DynamicCache):
    """Tells a network how many tokens have gone before; holds none."""

    def __init__(self, seen: int):
        super().__init__()
        self.seen = seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.seen + query_length, 0


class PromptView:
    """The cache of one request's prompt: what the attention makes is kept and handed back."""

    def __init__(self, store: Store, request: int):
        self.store, self._slots = store, store.slots(request)

    def update(self, keys: Tensor, values: Tensor, layer_idx: int = 0, *_: Any, **__: Any) -> Pair:
        """Keys and values [1, head, token, width]."""
        self.store.write(layer_idx, self._slots, keys[0].transpose(0, 1), values[0].transpose(0, 1))
        return keys, values


class StepView:
    """The cache of requests that go on by one token each; their newest slot is for that token.

    - table: [row, token] slots as `Store.table` gives them.
    - new: by layer, the keys and values [row, head, width] that the step made."""

    def __init__(self, store: Store, table: Tensor):
        self.store, self.table = store, table
        self.new: dict[int, Pair] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int = 0, *_: Any, **__: Any) -> Pair:
        """Keys and values [row, head, 1, width] of the new tokens -> [row, head, token, width] of all."""
        made = self.new[layer_idx] = (keys[:, :, 0], values[:, :, 0])
        self.store.write(layer_idx, self.table[:, -1], *made)
        whole = self.store.read(layer_idx, self.table)
        return whole[0].transpose(1, 2), whole[1].transpose(1, 2)
