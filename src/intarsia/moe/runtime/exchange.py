"""`Wire`: every exchange between ranks goes through here, and is counted here.

There is one collective, an all-to-all of bytes with a size for each pair of ranks. How many rows a pair exchanges is
known to the sender only; so a small exchange is *fused*: counts and rows travel together in room for the most rows
there can be (every rank knows how many rows each rank has). A large one sends the counts first, then just the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from intarsia.errors import IntarsiaError, first_line
from intarsia.moe.runtime.counters import Phase, Traffic

FUSE_BYTES = 64 * 1024
"""Largest room for a pair's rows that is sent together with the counts: about what a link carries in the time that
another collective takes to begin."""


@dataclass(frozen=True)
class Rows:
    """What a dispatch brought.

    - parts: for each source rank the rows [n, bytes] that it sent to this one (from itself: none).
    - carried: [source, rank] tokens that go on from the source to the rank (to itself: they stay).
    - partial: [source] rows whose result has to be sent on to the token's carrier."""

    parts: list[Tensor]
    carried: list[list[int]]
    partial: list[int]


class Wire:
    """One rank's connection to the others.

    - rank, ranks: who this is, of how many; `group`: torch.distributed's process group (None: the default one).
    - device: where buffers live. delay: seconds to wait before each collective (to play a slower link; 0: none).
    - traffic: what was sent so far; `phase` says which of its counters are running."""

    def __init__(
        self,
        rank: int = 0,
        ranks: int = 1,
        *,
        group: Any = None,
        device: torch.device | str = "cpu",
        delay: float = 0.0,
        fuse_bytes: int = FUSE_BYTES,
    ):
        self.rank, self.ranks, self.group, self.device, self.delay = rank, ranks, group, torch.device(device), delay
        self.fuse_bytes = fuse_bytes
        self.traffic, self.phase = Traffic(), "prefill"

    phase: Phase

    @property
    def counters(self) -> Any:
        """The running phase's."""
        return self.traffic.of(self.phase)

    def exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Send bytes to every rank, get bytes from every rank; counts the collective, and nothing else.

        - parts: uint8 [bytes] for each rank; this rank's own is handed back as it is.
        - sizes: bytes that come from each rank."""
        if self.ranks == 1:
            return [parts[0]]
        self.counters.collectives += 1
        if self.delay:
            time.sleep(self.delay)
        out = [0 if r == self.rank else len(part) for r, part in enumerate(parts)]
        into = [0 if r == self.rank else size for r, size in enumerate(sizes)]
        sent = torch.cat([part for r, part in enumerate(parts) if r != self.rank])
        got = torch.empty(sum(into), dtype=torch.uint8, device=self.device)
        try:
            dist.all_to_all_single(got, sent, into, out, group=self.group)
        except (RuntimeError, ValueError) as error:
            raise IntarsiaError(
                f"rank {self.rank}: another rank is gone or hangs ({first_line(error, 120)})"
            ) from error
        received = list(got.split(into))
        received[self.rank] = parts[self.rank]
        return received

    def dispatch(
        self,
        rows: Tensor,
        to: Sequence[Tensor],
        carried: Sequence[int],
        partial: int,
        most: Sequence[int],
        payload: int,
    ) -> Rows:
        """Send rows to other ranks.

        - rows: uint8 [n, bytes]; to: for each rank the indices of the rows it gets (for this rank: none).
        - carried: tokens that go on to each rank; partial: rows of this rank's tokens that are to be sent on. All ranks
          are told these.
        - most: how many rows each rank has, which all know; payload: bytes of a row that are hidden state."""
        width, mine = rows.shape[1], self.rank
        if self.ranks == 1:
            return Rows([rows[:0]], [list(carried)], [partial])
        counts = [len(index) for index in to]
        numbers = [*counts, *carried, partial]
        numbers += [0] * (len(numbers) % 2)  # whole words of 8 bytes
        header = torch.tensor(numbers, dtype=torch.int32, device=self.device).view(torch.uint8)
        said = [len(header) if n else 0 for n in most]  # who has no rows says nothing
        header = header[: said[mine]]
        own = [rows.index_select(0, index).flatten() for index in to]
        if max(most) * width <= self.fuse_bytes:
            room = [n * width for n in most]
            full = [torch.cat([header, part, part.new_zeros(room[mine] - len(part))]) for part in own]
            got = self.exchange(full, [s + r for s, r in zip(said, room, strict=True)])
            told = [part[:s] for part, s in zip(got, said, strict=True)]
            came = [part[s:] for part, s in zip(got, said, strict=True)]
            self.counters.padding_bytes += sum(room[mine] - len(p) for r, p in enumerate(own) if r != mine)
        else:
            told = self.exchange([header] * self.ranks, said)
            came = self.exchange(own, [_numbers(t, self.ranks)[mine] * width for t in told])
        table = [_numbers(t, self.ranks) for t in told]
        parts = [c[: t[mine] * width].view(-1, width) for c, t in zip(came, table, strict=True)]
        parts[mine] = rows[:0]
        sent = sum(counts) - counts[mine]
        self._count(counts, sent, sent * payload, sent * (width - payload) + (self.ranks - 1) * said[mine])
        told_carried = [t[self.ranks : 2 * self.ranks] for t in table]
        return Rows(parts, told_carried, [t[2 * self.ranks] for t in table])

    def give(self, parts: Sequence[Tensor], sizes: Sequence[int], payload: int) -> list[Tensor]:
        """Send rows [n, bytes] to ranks that know how many there come (`sizes`, in rows); payload as in `dispatch`."""
        width = parts[0].shape[1]
        got = self.exchange([p.flatten() for p in parts], [n * width for n in sizes])
        counts = [len(p) for p in parts]
        sent = sum(counts) - counts[self.rank]
        self._count(counts, sent, sent * payload, sent * (width - payload))
        return [part.view(-1, width) for part in got]

    def gather(self, part: Tensor, sizes: Sequence[int], context: int) -> list[Tensor]:
        """Tell every rank the same bytes; `context` of them are keys and values."""
        if self.ranks > 1:
            others = (self.ranks - 1) * len(part)
            self._count([1 if len(part) else 0] * self.ranks, 0, 0, others - (self.ranks - 1) * context)
            self.counters.kv_bytes += (self.ranks - 1) * context
        return self.exchange([part] * self.ranks, sizes)

    def move(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Send keys and values, bytes to each rank."""
        others = [len(p) if r != self.rank else 0 for r, p in enumerate(parts)]
        self._count(others, 0, 0, 0)
        self.counters.kv_bytes += sum(others)
        return self.exchange(parts, sizes)

    def _count(self, to: Sequence[int], rows: int, payload: int, metadata: int) -> None:
        if self.ranks == 1:
            return
        counters = self.counters
        counters.messages += sum(1 for r, n in enumerate(to) if n and r != self.rank)
        counters.rows += rows
        counters.payload_bytes += payload
        counters.metadata_bytes += metadata


def _numbers(told: Tensor, ranks: int) -> list[int]:
    """Counts from a header; zeros from a rank that said nothing."""
    return told.clone().view(torch.int32).tolist() if len(told) else [0] * (2 * ranks + 2)


def pack(*columns: Tensor) -> Tensor:
    """[n, bytes] from tensors [n, width] of any types."""
    return torch.cat([_solid(c).view(torch.uint8) for c in columns], dim=1)


def unpack(rows: Tensor, *kinds: tuple[torch.dtype, int]) -> list[Tensor]:
    """Tensors [n, width] again, by type and width."""
    columns, start = [], 0
    for dtype, width in kinds:
        size = width * dtype.itemsize
        columns.append(_solid(rows[:, start : start + size]).view(dtype))
        start += size
    return columns


def _solid(tensor: Tensor) -> Tensor:
    """With the strides of its shape (`contiguous` leaves those of axes of length one as they are)."""
    return tensor.clone(memory_format=torch.contiguous_format)
