"""`Prefixes`: keys and values of what was read before, found again by the tokens they belong to.

Source: Zheng et al. 2024, "SGLang", §3 (RadixAttention); in blocks of equal size as in Kwon et al. 2023,
"PagedAttention"."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

BLOCK = 16  # tokens that are kept and found together


class Prefixes:
    """Blocks of keys and values in a trie over their tokens, up to a number of bytes; the least recently used go first.

    - limit: bytes. size: of one block.

    Keys and values depend on all tokens before, so a block's key is its parent's number and its own tokens."""

    def __init__(self, limit: int):
        self.limit = limit
        self.bytes = 0
        self._blocks: OrderedDict[tuple[int, Hashable], tuple[int, Any, int]] = OrderedDict()
        self._roots: dict[Hashable, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, ids: Sequence[int], under: Hashable = None) -> list[Any]:
        """The blocks of the longest kept beginning of `ids`, in order. under: what else they depend on (an adapter)."""
        found, keys, parent = [], [], self._root(under)
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            key = (parent, tuple(ids[start : start + BLOCK]))
            if (entry := self._blocks.get(key)) is None:
                break
            parent = entry[0]
            found.append(entry[1])
            keys.append(key)
        self._touch(keys)
        return found

    def keep(
        self, ids: Sequence[int], make: Callable[[int, int], tuple[Any, int]], under: Hashable = None
    ) -> int:  # fmt: skip
        """Keep the whole blocks of `ids` that are not kept yet; returns how many tokens of them are.

        make: gives the block of positions start to end, and its bytes."""
        keys, parent, known = [], self._root(under), 0
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            key = (parent, tuple(ids[start : start + BLOCK]))
            entry = self._blocks.get(key)
            if entry is None:
                block, size = make(start, start + BLOCK)
                # A beginning that is longer than all room would push out its own first blocks.
                if size * (len(keys) + 1) > self.limit:
                    break
                self._next += 1
                entry = (self._next, block, size)
                self._blocks[key] = entry
                self.bytes += size
            parent = entry[0]
            keys.append(key)
            known = start + BLOCK
        self._touch(keys)
        while self.bytes > self.limit:
            _, (_, _, size) = self._blocks.popitem(last=False)
            self.bytes -= size
        return known

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()
        self.bytes = 0

    def _root(self, under: Hashable) -> int:
        return self._roots.setdefault(under, -1 - len(self._roots))

    def _touch(self, keys: list[tuple[int, Hashable]]) -> None:
        # From the end to the beginning: a block is always used later than those that go on from it, so that what is
        # dropped first has nothing behind it.
        for key in reversed(keys):
            self._blocks.move_to_end(key)
