"""The traffic of a run from its routing alone, in plain numpy: what the runtime's own counters have to agree with.

It also tells what another placement or mode, or a trace from elsewhere, would have sent, without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import BadInput
from intarsia.moe.placement.placement import Placement
from intarsia.moe.placement.serving import Serving
from intarsia.moe.runtime.counters import Counters, Traffic
from intarsia.moe.runtime.exchange import FUSE_BYTES
from intarsia.moe.runtime.homes import nearest, spread
from intarsia.moe.runtime.routed import Event

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """What a row weighs, in bytes.

    - state: a hidden state. weight: one router weight. context: by block, a token's key and value.
    - routed: the numbers of the blocks with a router.
    - ordered: experts' outputs come back one by one (deterministic mode with three experts or more).
    - free_first_hop, fuse_bytes: as the runtime's."""

    state: int
    weight: int
    context: tuple[int, ...]
    routed: tuple[int, ...]
    ordered: bool = False
    free_first_hop: bool = False
    fuse_bytes: int = FUSE_BYTES

    @classmethod
    def of(cls, runtime: Any) -> Sizes:
        """Those of a `Runtime`."""
        body = runtime.body
        return cls(
            body.width * body.dtype.itemsize, body.weights.itemsize,
            tuple(map(body.store.width, range(body.store.layers))), tuple(body.opened.routed),
            runtime.vanilla.ordered, runtime.coherent is not None and runtime.coherent.free_first_hop,
            runtime.wire.fuse_bytes,
        )  # fmt: skip


@dataclass
class Effort:
    """What the steps of one phase cost on the slowest rank: what a time is modelled from.

    - steps, tokens; collectives: of all steps together.
    - critical_bytes: summed over exchanges, what the rank that sent most sent.
    - busiest_rows: summed over layers, (token, expert) pairs of the rank that ran most."""

    steps: int = 0
    tokens: int = 0
    collectives: int = 0
    critical_bytes: int = 0
    busiest_rows: int = 0


class Replayed(NamedTuple):
    """Traffic by rank, and the effort of decoding."""

    traffic: list[Traffic]
    decode: Effort


def replay(
    events: Sequence[Event], experts: Mapping[int, Ints], placement: Placement, mode: str, sizes: Sizes
) -> list[Traffic]:
    """Every rank's traffic.

    - events: the calls in order. experts: request -> [token, layer, k], the largest weight first."""
    return _Replay(experts, placement, mode, sizes).run(events)


def replay_trace(
    expert_ids: Ints, seq: Ints, placement: Placement, mode: str, sizes: Sizes, *, prompt: int, batch: int = 16
) -> Replayed:
    """The traffic and the effort of a routing trace, as if its sequences had been requests.

    - expert_ids: [token, layer, k], the largest weight first; seq: [token].
    - prompt: tokens of each sequence that are its prompt; the rest is decoded, `batch` sequences at a time."""
    names = np.unique(seq)
    experts = {int(s): np.asarray(expert_ids[seq == s], dtype=np.int64) for s in names}
    if short := [s for s, ids in experts.items() if len(ids) <= prompt]:
        raise BadInput(
            f"sequence {short[0]} has {len(experts[short[0]])} tokens, more than the prompt's {prompt} wanted"
        )
    replayer = _Replay(experts, placement, mode, sizes)
    for start in range(0, len(names), batch):
        requests = tuple(int(s) for s in names[start : start + batch])
        nobody, none = (0,) * placement.devices, (False,) * len(requests)
        homes = tuple(spread(nobody, [None] * len(requests)))
        zeros = (0,) * len(requests)
        moved = replayer.prefill(Event("prefill", requests, homes, (prompt,) * len(requests), zeros, none, nobody))
        for position in range(prompt, max(len(experts[r]) for r in requests)):
            going = tuple(r for r in requests if len(experts[r]) > position)
            here = tuple(moved[r] for r in going)
            ones = (1,) * len(going)
            replayer.decode(Event("decode", going, here, ones, (position,) * len(going), (False,) * len(going), nobody))
    return Replayed(replayer.traffic, replayer.effort)


class _Replay:
    def __init__(self, experts: Mapping[int, Ints], placement: Placement, mode: str, sizes: Sizes):
        self.experts, self.mode, self.sizes = experts, mode, sizes
        self.ranks = placement.devices
        self.serving = Serving(placement)
        self.traffic = [Traffic() for _ in range(self.ranks)]
        self.now: list[Counters] = []
        self.effort = Effort()
        self._decoding = False
        k = next(iter(experts.values())).shape[2] if experts else 1
        self.row = sizes.state + k * (sizes.weight + 4)

    def run(self, events: Sequence[Event]) -> list[Traffic]:
        for event in events:
            if event.phase == "prefill":
                self.prefill(event)
            else:
                self.decode(event)
        return self.traffic

    # ---- the two kinds of calls

    def prefill(self, event: Event) -> dict[int, int]:
        """A call that runs prompts; the homes after it."""
        self.now, self._decoding = [t.prefill for t in self.traffic], False
        for t in self.traffic:
            t.prompt_tokens += sum(event.tokens)
        ids = [self.experts[r][:n] for r, n in zip(event.requests, event.tokens, strict=True)]
        here = np.repeat(event.homes, event.tokens)
        self._vanilla(np.concatenate(ids), here)
        homes = dict(zip(event.requests, event.homes, strict=True))
        new = self._per_rank(event.homes)
        if self.mode == "coherent":
            context = np.zeros(self.ranks, dtype=np.int64)
            np.add.at(context, np.array(event.homes), np.array(event.tokens) * sum(self.sizes.context))
            self._gather(4 * new, context)
            return homes
        self._gather((8 + (4 * self.ranks if self.mode == "home" else 0)) * new, 0 * new)
        if self.mode == "home":
            rows = {r: self._visits(i, home) for r, i, home in zip(event.requests, ids, event.homes, strict=True)}
            asked = {r: h for r, h, said in zip(event.requests, event.homes, event.asked, strict=True) if said}
            settled = nearest(rows, event.load, asked)
            self._settle(homes, settled, dict(zip(event.requests, event.tokens, strict=True)))
            homes = settled
        return homes

    def decode(self, event: Event) -> None:
        """A call that makes one token of each request."""
        self.now, self._decoding = [t.decode for t in self.traffic], True
        self.effort.steps += 1
        self.effort.tokens += len(event.requests)
        for t in self.traffic:
            t.new_tokens += len(event.requests)
        ids = np.stack([self.experts[r][p] for r, p in zip(event.requests, event.positions, strict=True)])
        here = np.array(event.homes)
        if self.mode != "coherent":
            self._vanilla(ids, here)
            self._gather(8 * self._per_rank(here), np.zeros(self.ranks, dtype=np.int64))
            return
        entries, context = (np.zeros(self.ranks, dtype=np.int64) for _ in range(2))
        layer_of = {block: layer for layer, block in enumerate(self.sizes.routed)}
        free = self.sizes.free_first_hop
        for block, width in enumerate(self.sizes.context):
            if not free:
                entries += self._per_rank(here)
                context += width * self._per_rank(here)
            if (layer := layer_of.get(block)) is None:
                continue
            serving = self.serving.at(layer, ids[:, layer], here)
            if not free:
                self._dispatch(serving, here, self.row + 4)
            else:
                self._busy(np.bincount(serving.ravel(), minlength=self.ranks))
            free = False
            here = serving[:, 0]
            self._to_carriers(serving)
        self._gather(4 * entries + 8 * self._per_rank(here), context)

    # ---- the exchanges

    def _vanilla(self, ids: Ints, here: Ints) -> None:
        for layer in range(ids.shape[1]):
            serving = self.serving.at(layer, ids[:, layer], here)
            self._dispatch(serving, here, self.row)
            back = np.zeros((self.ranks, self.ranks), dtype=np.int64)  # [from, to]
            if self.sizes.ordered:
                np.add.at(back, (serving, np.broadcast_to(here[:, None], serving.shape)), 1)
            else:
                rows, devices = np.nonzero(self._visited(serving))
                np.add.at(back, (devices, here[rows]), 1)
            self._rows(back, self.sizes.state, 0)

    def _dispatch(self, serving: Ints, here: Ints, width: int) -> None:
        if self.ranks == 1:
            self._busy(np.array([serving.size]))
            return
        rows, devices = np.nonzero(self._visited(serving))
        sent = np.zeros((self.ranks, self.ranks), dtype=np.int64)
        np.add.at(sent, (here[rows], devices), 1)
        most = self._per_rank(here)
        header = 4 * (2 * self.ranks + 1 + 1)
        fused = int(most.max()) * width <= self.sizes.fuse_bytes
        self._rows(sent, self.sizes.state, width - self.sizes.state, critical=False)
        for rank, counters in enumerate(self.now):
            counters.collectives += not fused
            counters.metadata_bytes += (self.ranks - 1) * header * int(most[rank] > 0)
            if fused:
                others = np.delete(sent[rank], rank)
                counters.padding_bytes += int((most[rank] - others).sum()) * width
        said = (self.ranks - 1) * header * (most > 0)
        if fused:
            self._critical(said + (self.ranks - 1) * most * width)
        else:
            self._critical(said)
            self._critical((sent.sum(1) - np.diag(sent)) * width)
        self._busy(np.bincount(serving.ravel(), minlength=self.ranks))

    def _to_carriers(self, serving: Ints) -> None:
        sent = np.zeros((self.ranks, self.ranks), dtype=np.int64)
        carrier = serving[:, 0]
        away = serving != carrier[:, None]
        if self.sizes.ordered:
            np.add.at(sent, (serving[away], np.broadcast_to(carrier[:, None], serving.shape)[away]), 1)
        else:
            visited = self._visited(serving)
            visited[np.arange(len(serving)), carrier] = False
            rows, devices = np.nonzero(visited)
            np.add.at(sent, (devices, carrier[rows]), 1)
        if sent.any():
            self._rows(sent, self.sizes.state, 8 if self.sizes.ordered else 4)

    def _critical(self, bytes_out: Ints) -> None:
        if self._decoding:
            self.effort.collectives += 1
            self.effort.critical_bytes += int(bytes_out.max())

    def _busy(self, pairs: Ints) -> None:
        if self._decoding:
            self.effort.busiest_rows += int(pairs.max())

    def _rows(self, sent: Ints, payload: int, metadata: int, critical: bool = True) -> None:
        """An exchange of rows, [from, to] of them."""
        if self.ranks == 1:
            return
        if critical:
            self._critical((sent.sum(1) - np.diag(sent)) * (payload + metadata))
        for rank, counters in enumerate(self.now):
            others = np.delete(sent[rank], rank)
            counters.collectives += 1
            counters.messages += int((others > 0).sum())
            counters.rows += int(others.sum())
            counters.payload_bytes += int(others.sum()) * payload
            counters.metadata_bytes += int(others.sum()) * metadata

    def _gather(self, metadata: Ints, context: Ints) -> None:
        if self.ranks == 1:
            return
        self._critical((self.ranks - 1) * (metadata + context))
        for rank, counters in enumerate(self.now):
            counters.collectives += 1
            counters.messages += (self.ranks - 1) * int(metadata[rank] + context[rank] > 0)
            counters.metadata_bytes += (self.ranks - 1) * int(metadata[rank])
            counters.kv_bytes += (self.ranks - 1) * int(context[rank])

    def _settle(self, before: Mapping[int, int], after: Mapping[int, int], tokens: Mapping[int, int]) -> None:
        moved = np.zeros((self.ranks, self.ranks), dtype=np.int64)
        for request, source in before.items():
            if after[request] != source:
                moved[source, after[request]] += tokens[request] * sum(self.sizes.context)
        if not moved.any():
            return
        for rank, counters in enumerate(self.now):
            counters.collectives += 1
            counters.messages += int((moved[rank] > 0).sum())
            counters.kv_bytes += int(moved[rank].sum())

    # ---- who is where

    def _visited(self, serving: Ints) -> NDArray[np.bool_]:
        visited = np.zeros((len(serving), self.ranks), dtype=bool)
        visited[np.arange(len(serving))[:, None], serving] = True
        return visited

    def _visits(self, ids: Ints, home: int) -> list[int]:
        """Rows of a prompt [token, layer, k] that each rank runs."""
        served = self.serving.through(ids, np.full(len(ids), home))
        return np.sum([self._visited(served[:, layer]).sum(0) for layer in range(ids.shape[1])], axis=0).tolist()

    def _per_rank(self, here: Any) -> Ints:
        return np.bincount(np.asarray(here, dtype=np.int64), minlength=self.ranks)
