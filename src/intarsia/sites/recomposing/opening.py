"""`Opened`: a tower's blocks run one by one on streams of the caller's, whole or in halves.

`recompose` changes the rows of a stream while the network runs as ever. Here the caller is the one who runs: rows may
leave between a block's attention and its MLP, rest, or go on in another process. What is around the blocks (embedding,
position encodings, masks) stays the network's own code: it is run once for some tokens, and what it hands the blocks is
kept. Made for inference: no graph is kept, and the network belongs to one `Opened` until `close`."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites.probe import dummy_inputs, first_tensor
from intarsia.sites.recomposing import halves
from intarsia.sites.recomposing.halves import Parts, _Half, _half, _Reached
from intarsia.sites.sitemap import site_map

Call = tuple[tuple, dict[str, Any]]
_CACHE = object()  # stands for the cache among kept arguments


@dataclass(frozen=True)
class Given:
    """What a network hands its blocks for some tokens.

    - stream: [row, token, width], what enters the first block.
    - calls: each block's other arguments."""

    stream: Tensor
    calls: list[Call]

    def call(self, index: int, rows: Tensor | None) -> Call:
        """The arguments of block `index` for some of the rows, [n] int64 in that order; None: for all."""
        args, kwargs = self.calls[index]
        if rows is None:
            return args, kwargs
        count = len(self.stream)
        return tuple(_pick(a, rows, count) for a in args), {k: _pick(v, rows, count) for k, v in kwargs.items()}


class _Passing:
    """A cache that keeps nothing."""

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return keys, values


class Opened:
    """The main tower of a network, opened. Raises `BadInput` where its blocks' wiring is not known.

    - blocks: how many there are; routed: the numbers of those with a router."""

    def __init__(self, network: nn.Module):
        sites = site_map(network)
        self.network, self.tower = network, sites.main
        wiring = sites.wiring[self.tower.name]
        self.parts = [Parts.of(w, f"{self.tower.prefix}layers.{i}") for i, w in enumerate(wiring)]
        for index, parts in enumerate(self.parts):
            if parts.form != "pre-norm":
                raise BadInput(
                    f"{self.tower.prefix}layers.{index} cannot be run in halves: it is a {parts.form} block, and only "
                    "in pre-norm blocks the stream alone goes from attention to MLP"
                )
        self.blocks = len(wiring)
        self.routed = [i for i, w in enumerate(wiring) if "router" in w.taps]
        self._norms = [w.taps["mlp_in"].module if "mlp_in" in w.taps else None for w in wiring]
        self._routers = [w.taps["router"].module if "router" in w.taps else None for w in wiring]
        self._outputs: list[dict[nn.Module, Any]] = [{} for _ in wiring]
        self._recorded: list[Call] | None = None
        self._before: list[tuple[nn.Module, Any]] = []
        self._open()
        self._ready = self.given(dummy_inputs(network)["input_ids"])
        for index in range(self.blocks):  # what a second half needs to know of a first
            self.first(index, self._ready.stream, self._ready, _Passing())

    def _open(self) -> None:
        for index, parts in enumerate(self.parts):
            for module in parts.roles:
                self._replace(module, self._part(module))
            self._replace(parts.block, self._block(parts.block, index))

    def _replace(self, module: nn.Module, forward: Any) -> None:
        self._before.append((module, module.__dict__.get("forward")))
        module.__dict__["forward"] = forward

    def _part(self, module: nn.Module) -> Any:
        own = module.__dict__.get("forward") or MethodType(type(module).forward, module)
        return lambda *args, **kwargs: halves.part_forward(module, own, args, kwargs)

    def _block(self, block: nn.Module, index: int) -> Any:
        own = block.__dict__.get("forward") or MethodType(type(block).forward, block)
        beside = (None,) * (self.parts[index].tuple_output - 1)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._recorded is None:
                return own(*args, **kwargs)
            self._recorded.append((tuple(map(_mark, args)), {k: _mark(v) for k, v in kwargs.items()}))
            stream = first_tensor(args, kwargs)
            return (stream, *beside) if self.parts[index].tuple_output else stream

        return forward

    def close(self) -> None:
        """Give the network back as it was."""
        for module, forward in reversed(self._before):
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward
        self._before.clear()

    @torch.no_grad()
    def given(self, ids: Tensor, cache: Any = None, **more: Tensor) -> Given:
        """What the blocks are handed for token ids [row, token]; they do not run.

        - cache: a transformers cache that says how many tokens have gone before.
        - more: `position_ids`, `attention_mask`, ... as the network's forward takes them."""
        kwargs = {"use_cache": True, "past_key_values": cache} if cache is not None else {"use_cache": False}
        self._recorded = []
        try:
            self.tower.root(input_ids=ids, **kwargs, **more)
            stream = first_tensor(*self._recorded[0])
            assert stream is not None
            return Given(stream, self._recorded)
        finally:
            self._recorded = None

    @torch.no_grad()
    def first(self, index: int, stream: Tensor, given: Given, cache: Any, rows: Tensor | None = None) -> Tensor:
        """The middle of block `index`: [row, token, width] after attention, before the MLP's norm.

        - given: what the block is handed; rows: which of its rows these are; cache: whose `update` attention calls."""
        half = _Half(self.parts[index])
        token = _half.set(half)
        args, kwargs = self._call(given.call(index, rows), index, stream, cache)
        try:
            self.parts[index].block(*args, **kwargs)
        except _Reached as reached:
            self._outputs[index] = half.outputs
            return reached.middle
        finally:
            _half.reset(token)
        raise BadInput(f"{self.tower.prefix}layers.{index} has no MLP to stop before")

    @torch.no_grad()
    def second(self, index: int, middle: Tensor) -> Tensor:
        """The stream after block `index` from its middle, for any rows [row, token, width]."""
        token = _half.set(_Half(self.parts[index], self._outputs[index], middle))
        args, kwargs = self._call(self._ready.calls[index], index, middle, None)
        try:
            output = self.parts[index].block(*args, **kwargs)
        finally:
            _half.reset(token)
        return self.parts[index].output.raw(args, kwargs, output)

    @torch.no_grad()
    def normed(self, index: int, middle: Tensor) -> Tensor:
        """What the MLP of block `index` is given: the middle [row, token, width] after its norm."""
        norm = self._norms[index]
        return middle if norm is None else norm(middle)

    @torch.no_grad()
    def routes(self, index: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and experts [n, k] that the router of block `index` gives normed states [n, width]."""
        router = self._routers[index]
        assert router is not None
        _, weights, experts = router(states)
        return weights, experts

    def router_weights(self) -> list[Tensor]:
        """The weights of the routers, in block order."""
        return [router.weight for router in self._routers if router is not None]  # type: ignore[misc]

    def _call(self, call: Call, index: int, stream: Tensor, cache: Any) -> Call:
        args, kwargs = self.parts[index].output.put_input(stream, *call)
        args = tuple(cache if a is _CACHE else a for a in args)
        return args, {k: cache if v is _CACHE or k == "past_key_values" else v for k, v in kwargs.items()}


def _mark(value: Any) -> Any:
    return _CACHE if hasattr(value, "get_seq_length") else value


def _pick(value: Any, rows: Tensor, count: int) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_pick(v, rows, count) for v in value)
    if isinstance(value, Tensor) and value.dim() and len(value) == count:
        return value.index_select(0, rows)
    return value
