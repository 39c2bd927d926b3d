"""`Body`: a shard's network opened for running: attention and MLP halves of its blocks, head, and caches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.moe.runtime.experts import Exchange
from intarsia.moe.runtime.request import Running
from intarsia.moe.runtime.shard import Shard
from intarsia.moe.runtime.store import PromptView, Seen, StepView, Store
from intarsia.moe.runtime.tiles import tile
from intarsia.sites import site_map, unembed
from intarsia.sites.recomposing import Given, Opened

ROWS = 64
"""In deterministic mode row-wise code between the products is given a multiple of this: no row falls into the rest of a
vector loop, where another formula may be used."""


class Body:
    """The network of a shard.

    - layer_of: the routed layer of each block, or None.
    - k, weights: experts of a token, and the type of their weights; width, dtype: of the stream.
    - deterministic: a row's bits do not depend on the other rows: attention runs request by request, each at its own
      length, products run in tiles, the rest in whole vectors. Costs as many attention calls as there are requests."""

    def __init__(self, shard: Shard, deterministic: bool = False):
        if deterministic and torch.get_num_threads() != 1 and next(shard.network.parameters()).device.type == "cpu":
            raise BadInput(
                f"the deterministic mode wants one torch thread a rank, this one has {torch.get_num_threads()}: "
                "threads cut rows into parts by their number"
            )
        self.shard, self.deterministic = shard, deterministic
        network = self.network = shard.network
        if deterministic:
            sites = site_map(network)
            tile(network, [w.taps["router"].module for w in sites.wiring[sites.main.name] if "router" in w.taps])
        self.opened = Opened(network)
        if len(self.opened.routed) != len(shard.layers):
            raise BadInput(
                f"{type(network).__name__} has {len(shard.layers)} layers of experts, but a router that can be called "
                f"was found in {len(self.opened.routed)} of its blocks"
            )
        number = {block: layer for layer, block in enumerate(self.opened.routed)}
        self.layer_of = [number.get(block) for block in range(self.opened.blocks)]
        self.device = next(network.parameters()).device
        self.vocabulary = int(network.get_input_embeddings().num_embeddings)
        self.positions: int | None = getattr(network.config.get_text_config(), "max_position_embeddings", None)
        self.store = Store(self.opened.blocks, self.device)
        self._learn()

    def router_sha256(self) -> str:
        """Of the routers' weights as float32, in layer order: what a placement says it was made for."""
        digest = hashlib.sha256()
        for weight in self.opened.router_weights():
            digest.update(weight.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _learn(self) -> None:
        """What only a run shows: shapes of keys and values, the number of experts and the type of their weights."""
        given = self.opened.given(torch.zeros(1, 1, dtype=torch.long, device=self.device))
        stream = given.stream
        self.width, self.dtype = stream.shape[-1], stream.dtype
        for index in range(self.opened.blocks):
            middle = self.opened.first(index, stream, given, _Learning(self.store))
            if self.layer_of[index] is not None:
                weights, experts = self.opened.routes(index, self.opened.normed(index, middle).flatten(0, 1))
                self.k, self.weights = experts.shape[1], weights.dtype

    # ---- one block

    def normed(self, index: int, middle: Tensor) -> Tensor:
        """What the MLP of a block is given, [n, width], from the middle [n, 1, width]."""
        return self.opened.normed(index, self._whole(middle))[: len(middle)].flatten(0, 1)

    def second(self, index: int, middle: Tensor, exchange: Exchange | None = None) -> Tensor:
        """The stream after a block's MLP half, [n, 1, width]; its experts' answer comes from `exchange`."""
        count = len(middle)
        layer = self.layer_of[index]
        if layer is None:
            return self.opened.second(index, self._whole(middle))[:count]

        def answer(states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
            assert exchange is not None
            given = exchange(states[:count], chosen[:count], weights[:count])
            return torch.cat([given, given.new_zeros(len(states) - count, given.shape[1])])

        experts = self.shard.layers[layer]
        experts.exchange = answer
        try:
            return self.opened.second(index, self._whole(middle))[:count]
        finally:
            experts.exchange = None

    def _whole(self, rows: Tensor) -> Tensor:
        if not self.deterministic:
            return rows
        return torch.cat([rows, rows.new_zeros(math.ceil(len(rows) / ROWS) * ROWS - len(rows), *rows.shape[1:])])

    def head(self, stream: Tensor) -> Tensor:
        """Logits [n, vocabulary] of rows [n, 1, width]."""
        groups = stream.split(1) if self.deterministic else [stream]
        return torch.cat([unembed(self.network, rows[:, 0]) for rows in groups])  # type: ignore[arg-type]

    # ---- whole prompts, single tokens

    def prompts(self, running: Sequence[Running]) -> Prompts:
        """Prompts to run; there must be room for them in the store."""
        return Prompts(self, running)

    def step(self, running: Sequence[Running]) -> Step:
        """The next token of requests; there must be room for it in the store."""
        return Step(self, running)

    def empty(self) -> Tensor:
        """A stream of no rows."""
        return torch.empty(0, 1, self.width, dtype=self.dtype, device=self.device)


class Prompts:
    """The prompts of some requests, one after the other: rows are tokens.

    - stream: [row, 1, width]; requests, positions: [row] whose token, and which."""

    def __init__(self, body: Body, running: Sequence[Running]):
        self.body = body
        self.lengths = [len(r.request.prompt) for r in running]
        self._views = [PromptView(body.store, r.request.id) for r in running]
        device = body.device
        ids = [torch.tensor([r.request.prompt], device=device) for r in running]
        places = [torch.arange(n, device=device)[None] for n in self.lengths]
        given = [body.opened.given(i, Seen(0), position_ids=p) for i, p in zip(ids, places, strict=True)]
        self._given: list[Given] = given
        self.stream = torch.cat([g.stream[0, :, None] for g in given]) if given else body.empty()
        self.requests = torch.tensor([r.request.id for r in running for _ in r.request.prompt], device=device)
        self.positions = torch.cat([p[0] for p in places]) if places else self.requests

    def attend(self, index: int, stream: Tensor) -> Tensor:
        """The middle of a block, [row, 1, width]."""
        parts = []
        for rows, given, view in zip(stream.split(self.lengths), self._given, self._views, strict=True):
            parts.append(self.body.opened.first(index, rows.transpose(0, 1), given, view)[0, :, None])
        return torch.cat(parts)

    @property
    def ends(self) -> Tensor:
        """[request] the row of each prompt's last token."""
        return torch.tensor(self.lengths, device=self.body.device).cumsum(0) - 1


class Step:
    """One new token each of some requests.

    - stream: [request, 1, width]; requests, positions: [request]."""

    def __init__(self, body: Body, running: Sequence[Running]):
        self.body, self.running = body, list(running)
        device = body.device
        self.requests = torch.tensor([r.request.id for r in running], device=device)
        self.positions = torch.tensor([r.position for r in running], device=device)
        self._newest = torch.tensor([body.store.newest(r.request.id) for r in running], device=device)
        self._alone: dict[int, tuple[Given, Tensor]] = {}
        self._many: tuple[Given, Tensor] | None = None
        if body.deterministic:
            given = [self._of(row)[0].stream for row in range(len(self.running))]
            self.stream = torch.cat(given) if given else body.empty()
        elif self.running:
            self._many = self._given(self.running)
            self.stream = self._many[0].stream
        else:
            self.stream = body.empty()

    def _given(self, running: Sequence[Running]) -> tuple[Given, Tensor]:
        table = self.body.store.table([r.request.id for r in running])
        ids = torch.tensor([[r.made[-1]] for r in running], device=self.body.device)
        places = torch.tensor([[r.position] for r in running], device=self.body.device)
        mask = {} if bool((table > 0).all()) else {"attention_mask": (table > 0).long()}
        return self.body.opened.given(ids, Seen(table.shape[1] - 1), position_ids=places, **mask), table

    def _of(self, row: int) -> tuple[Given, Tensor]:
        if row not in self._alone:
            self._alone[row] = self._given([self.running[row]])
        return self._alone[row]

    def attend(self, index: int, stream: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The middle of a block for the requests `rows` [n], [n, 1, width], and their new keys and values [n, ...]."""
        opened, store = self.body.opened, self.body.store
        if self._many is not None:
            view = StepView(store, self._many[1][rows])
            middle = opened.first(index, stream, self._many[0], view, rows)
            return middle, *view.new[index]
        made = []
        for row, one in zip(rows.tolist(), stream.split(1), strict=True):
            given, table = self._of(row)
            view = StepView(store, table)
            made.append((opened.first(index, one, given, view), *view.new[index]))
        return tuple(map(torch.cat, zip(*made, strict=True)))  # type: ignore[return-value]

    def slots(self, rows: Tensor) -> Tensor:
        """[n] where the new tokens of requests `rows` are kept."""
        return self._newest[rows]


class _Learning:
    """Shows the store what keys and values look like."""

    def __init__(self, store: Store):
        self.store = store

    def update(self, keys: Tensor, values: Tensor, layer_idx: int = 0, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.store.prepare(layer_idx, keys, values)
        return keys, values
