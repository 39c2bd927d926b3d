"""`Choice`: one of the networks that a full one holds. `Space`: what may be chosen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One of the networks. blocks: numbers of those that stay. neurons: of each of these. heads: key-value heads of
    every block. width: of the stream."""

    blocks: tuple[int, ...]
    neurons: tuple[int, ...]
    heads: int
    width: int

    @property
    def uniform(self) -> bool:
        """Whether all blocks have the same number of neurons, which is what a plain config can say."""
        return len(set(self.neurons)) < 2

    def said(self) -> str:
        """In a few words."""
        low, high = min(self.neurons), max(self.neurons)
        some = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        return f"{len(self.blocks)} blocks, {some} neurons, {self.heads} key-value heads, width {self.width:,}"


@dataclass(frozen=True)
class Space:
    """What may be chosen: the values of each, the smallest first, the last is the full network's. fewest: blocks that
    stay at least. uneven: whether blocks may have different numbers of neurons."""

    neurons: tuple[int, ...]
    heads: tuple[int, ...]
    widths: tuple[int, ...]
    fewest: int
    uneven: bool = False

    def drawn(self, count: int, chance: random.Random) -> Choice:
        """One by chance. count: blocks of the full network."""
        kept = sorted(chance.sample(range(count), chance.randint(self.fewest, count)))
        one = chance.choice(self.neurons)
        each = tuple(chance.choice(self.neurons) if self.uneven else one for _ in kept)
        return Choice(tuple(kept), each, chance.choice(self.heads), chance.choice(self.widths))

    def smallest(self, count: int, order: Sequence[int] = ()) -> Choice:
        """The least of everything. order: of blocks, the first to go first; by default the middle ones go."""
        order = order or sorted(range(count), key=lambda i: abs(i - count / 2))
        kept = tuple(sorted(set(range(count)) - set(order[: count - self.fewest])))
        return Choice(kept, (self.neurons[0],) * len(kept), self.heads[0], self.widths[0])
