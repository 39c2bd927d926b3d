"""`Flow`: the bookkeeping of one tower in one forward, while its rows get fewer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from intarsia.sites.recomposing.step import Step


@dataclass(frozen=True)
class Trace:
    """What one block did: `owner` [batch, original] is the row each original token lies in after it (-1: dropped),
    `sizes` and `position` are the flow's after it; `score` [batch, pairs] what the rule thought of its pairs, if it
    said so."""

    index: int
    owner: Tensor
    sizes: Tensor
    position: Tensor
    score: Tensor | None = None


@dataclass
class Flow:
    """One tower's rows in one forward.

    - sizes: [batch, row] how many original tokens a row stands for; 0: nobody may read it.
    - owner: [batch, original] the row that each original token is part of; -1: dropped.
    - position: [batch, row] the original place of a row; `original` and above: a row that was appended; -1: padding.
    - inputs: keyword arguments of the tower's own model; `image_mask` [batch, token] where pictures lie in a decoder.
    - vision: in a decoder, the flow of the tower whose rows lie in it.
    - facts: whatever the rule wants to keep for this forward.
    - traces: one for each block that lost rows."""

    tower: str
    original: int
    sizes: Tensor
    owner: Tensor
    position: Tensor
    inputs: dict[str, Any] = field(default_factory=dict)
    vision: Flow | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    given: Tensor | None = None
    """What the tower's own model gave to others, where they read fewer rows."""
    even: bool = True
    """Whether every row still stands for itself, so that no score needs a bias."""
    proportional: bool = True
    """Whether a row's size counts in attention; if not, only rows that nobody may read are told apart."""

    @classmethod
    def of(cls, tower: str, stream: Tensor, **known: Any) -> Flow:
        """The flow at the first block of a stream [batch, token, width]."""
        batch, tokens = stream.shape[:2]
        place = torch.arange(tokens, device=stream.device).expand(batch, tokens)
        sizes = torch.ones(batch, tokens, device=stream.device)
        return cls(tower, tokens, sizes, place, place, **known)

    @property
    def rows(self) -> int:
        """How many rows there are now, appended and padded ones included."""
        return self.sizes.shape[1]

    @property
    def guests(self) -> Tensor:
        """[batch, row] bool: rows that were appended."""
        return self.position >= self.original

    @property
    def padded(self) -> Tensor:
        """[batch, row] bool: rows that only fill up the batch."""
        return self.position < 0

    def holding(self, originals: Tensor) -> Tensor:
        """[batch, row] bool: rows that any of `originals` [batch, original] bool is part of."""
        nowhere = self.rows
        rows = self.owner.masked_fill(~originals | (self.owner < 0), nowhere)
        marked = torch.zeros(len(rows), nowhere + 1, dtype=torch.bool, device=rows.device)
        return marked.scatter(1, rows, True)[:, :-1]

    def append(self, stream: Tensor, rows: Tensor, size: float = 0.0) -> Tensor:
        """`stream` with `rows` [batch, more, width] behind it. With size 0 they read all others and none reads them."""
        more = rows.shape[1]
        batch = stream.shape[0]
        place = torch.arange(self.rows, self.rows + more, device=stream.device).expand(batch, more)
        self.sizes = torch.cat([self.sizes, self.sizes.new_full((batch, more), size)], dim=1)
        self.position = torch.cat([self.position, place], dim=1)
        self.even = self.even and size == 1.0
        return torch.cat([stream, rows], dim=1)

    def apply(self, step: Step, index: int, score: Tensor | None = None) -> None:
        """Follow a reduction: sizes add up, owners move on."""
        self.sizes = step.sizes(self.sizes)
        position = self.position.gather(1, step.keep.clamp(min=0))
        self.position = position.masked_fill(step.keep < 0, -1)
        owner = step.into.gather(1, self.owner.clamp(min=0))
        self.owner = owner.masked_fill(self.owner < 0, -1)
        self.even = False
        self.traces.append(Trace(index, self.owner, self.sizes, self.position, score))

    def bias(self) -> Tensor | None:
        """[batch, row] log of the sizes, to be added to the scores of each key; None where all sizes are one."""
        if self.even:
            return None
        return self.sizes.log() if self.proportional else (self.sizes > 0).to(self.sizes.dtype).log()

    def restored(self, stream: Tensor) -> Tensor:
        """One row for each original token, [batch, original, width]: its own or the one it was merged into. Dropped
        ones are zero."""
        if not self.traces:
            return stream[:, : self.original]
        rows = self.owner.clamp(min=0)[..., None].expand(-1, -1, stream.shape[-1])
        full = stream.gather(1, rows)
        return full.masked_fill((self.owner < 0)[..., None], 0.0)

    # ---- what the blocks are told beside the stream

    def aligned(self, stream: Tensor, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """A block's arguments for the rows there are now: position encodings and masks made for the original tokens
        give only the rows (and columns) that are left. `stream` is the one that stays as it is."""
        if not self.traces and self.rows == self.original:
            return args, kwargs
        args = tuple(a if a is stream else self._aligned("", a) for a in args)
        return args, {k: v if v is stream else self._aligned(k, v) for k, v in kwargs.items()}

    def _aligned(self, name: str, value: Any) -> Any:
        if isinstance(value, tuple) and value and all(isinstance(v, Tensor) for v in value):
            return tuple(self._aligned(name, v) for v in value)
        if not isinstance(value, Tensor) or name.startswith("encoder_"):
            return value
        where = self.position.clamp(min=0, max=self.original - 1)
        batch = len(where)
        if value.dim() == 4 and value.shape[-1] == self.original:
            return self._mask(value, where)
        if value.dim() >= 2 and value.shape[1] == self.original and value.shape[0] in (1, batch):
            index = where.view(*where.shape, *[1] * (value.dim() - 2)).expand(-1, -1, *value.shape[2:])
            return value.expand(batch, *value.shape[1:]).gather(1, index)
        return value

    def _mask(self, mask: Tensor, where: Tensor) -> Tensor:
        """[batch or 1, head or 1, query or 1, key] for the rows that are left; appended rows read everything real."""
        batch, heads, queries = len(where), *mask.shape[1:3]
        columns = where[:, None, None, :].expand(batch, heads, queries, -1)
        mask = mask.expand(batch, -1, -1, -1).gather(3, columns)
        if queries > 1:
            rows = where[:, None, :, None].expand(batch, heads, -1, mask.shape[3])
            # An appended row takes the last token's row: in a causal tower that is the one that reads most.
            mask = mask.gather(2, rows)
        return mask


@dataclass
class Held:
    """What a decoder's cache holds of a prompt whose rows got fewer: by block, the places and sizes of its rows.

    - original: the prompt's length before; block 0 always holds all of it, so that positions go on from there."""

    original: int
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def columns(self, index: int, mask: Tensor) -> Tensor:
        """A mask [batch, 1, query, original + more] for the columns that block `index` holds."""
        position, _ = self.layers[index]
        where = position.clamp(min=0)[:, None, None, :].expand(len(position), *mask.shape[1:3], -1)
        old = mask[..., : self.original].expand(len(position), -1, -1, -1).gather(3, where)
        return torch.cat([old, mask[..., self.original :].expand(len(position), -1, -1, -1)], dim=3)

    def bias(self, index: int, keys: int) -> Tensor:
        """[batch, key] of block `index`: log sizes of the prompt's rows, nothing for the tokens after it."""
        _, sizes = self.layers[index]
        log = sizes.log()
        return torch.cat([log, log.new_zeros(len(log), keys - log.shape[1])], dim=1)
