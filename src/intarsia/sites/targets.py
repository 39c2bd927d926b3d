"""The target prompt of a sweep: the tokens before the patched one run once, and its blocks can be called one by one for
any rows that go on from there."""

from __future__ import annotations

import contextlib
import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.inputs import Batch, takes
from intarsia.sites.probe import first_output, first_tensor
from intarsia.sites.resuming import skipping
from intarsia.sites.sitemap import SiteMap
from intarsia.sites.taps import Tap
from intarsia.sites.towers import Tower

Call = tuple[tuple, dict[str, Any]]
Pair = tuple[Tensor, Tensor]
CACHE = object()  # stands for the cache among recorded arguments


@dataclass(frozen=True)
class Step:
    """What the network hands its blocks for some new tokens, without having run the blocks.

    - stream: [sequence, token, width], what enters the first block.
    - one, many: each block's arguments when one sequence runs, and when all of them do (two at least).
    - rows: how many sequences `many` has.
    - held: how many earlier tokens each block's cache holds (a sliding window forgets).
    - seen: how many tokens have gone before."""

    stream: Tensor
    one: list[Call]
    many: list[Call]
    rows: int
    held: list[int]
    seen: int


class Enough(Exception):
    """Ends a block's call as soon as its keys and values are known."""


class RowCache:
    """The cache of one block in one call: the shared prefix, what each row has of its own, and what the call adds.

    - prefix: keys and values [1, head, token, width] of the tokens before the patched one, or None.
    - own: keys and values [row, head, token, width] from the patched token on, or None.
    - held: how many earlier tokens the block may see, of the `seen` ones.
    - drop: hide the patched token; `hole` is then its place among the keys. `cut` takes it out of them, where there is
      no mask to hide it by (with a mask it stays, for some networks count the keys to tell distances).
    - only_keys: end the call once keys and values are known."""

    def __init__(self, prefix: Pair | None, own: Pair | None, held: int, seen: int, drop: bool, only_keys: bool):
        self.prefix, self.own, self.seen, self.only_keys = prefix, own, seen, only_keys
        of_own = own[0].shape[2] if own is not None else 0
        self.shared = held - of_own  # tokens of the prefix within the window; negative: that many of `own` are outside
        self.hole = self.shared if drop and of_own and self.shared >= 0 else None
        self.cut = False
        self.new: Pair | None = None

    def update(self, keys: Tensor, values: Tensor, layer_idx: int = 0, *args: Any, **kwargs: Any) -> Pair:
        """Keys and values [row, head, token, width] that the new tokens attend to."""
        self.new = (keys, values)
        if self.only_keys:
            raise Enough
        return self._whole(keys, 0), self._whole(values, 1)

    def _whole(self, new: Tensor, which: int) -> Tensor:
        parts = []
        if self.shared > 0 and self.prefix is not None:
            parts.append(self.prefix[which][:, :, -self.shared :].expand(new.shape[0], -1, -1, -1))
        if self.own is not None:
            parts.append(self.own[which][:, :, 1 if self.cut else max(0, -self.shared) :])
        return torch.cat([*parts, new], dim=2) if parts else new

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens have gone before."""
        return self.seen


class TargetRun:
    """The target prompt with its prefix run; `step` prepares new tokens, `block` runs one block on them.

    - start: the first token that is not in the prefix: the patched one, or 0 where nothing can be kept between tokens.
    - caching: whether the network keeps keys and values between tokens, and nothing but these."""

    def __init__(self, network: nn.Module, sites: SiteMap, tower: Tower, batch: Batch, position: int):
        self.sites, self.tower = sites, tower
        self.ids = batch.kwargs["input_ids"]
        cache = None
        if takes(network, "past_key_values"):
            root = tower.root if tower.root.get_input_embeddings() is not None else network
            # Without a prefix one token runs all the same: it shows what kind of cache each block has.
            output = root(input_ids=self.ids[:, : max(1, position)], use_cache=True)
            cache = getattr(output, "past_key_values", None)
        self.caching = all(hasattr(layer, "keys") for layer in getattr(cache, "layers", (None,)))
        self.start = position if self.caching else 0
        self.prefix: list[Pair | None] = [None] * len(tower.blocks)
        if self.caching and position:
            self.prefix = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr]
        elif self.caching:
            for layer in cache.layers:  # type: ignore[union-attr]
                layer.reset()
        # What the network is shown at each step: caches of one row that are as long as the rows' own.
        self._shown: list[Any] = [cache if self.caching else None]
        self._one: dict[int, list[Call]] = {}

    @property
    def tokens(self) -> Tensor:
        """[1, token]: the target's tokens from `start` on."""
        return self.ids[:, self.start :]

    def step(self, number: int, tokens: Tensor) -> Step:
        """New tokens [sequence, token]: number 0 for the rest of the target, 1 for the first token after it, and so on;
        a number above 0 needs `advance` after the one before it."""
        before = self.start if number == 0 else self.ids.shape[1] + number - 1
        if number not in self._one:
            self._one[number] = self._record(tokens[:1], before, self._shown[number])
        return self._step(self._one[number], tokens, before, self._shown[number])

    def patched(self) -> Step:
        """The patched token alone, right after the prefix."""
        token = self.ids[:, self.start : self.start + 1]
        return self._step(self._record(token, self.start, self._shown[0]), token, self.start, self._shown[0])

    def _step(self, one: list[Call], tokens: Tensor, before: int, shown: Any) -> Step:
        tokens = tokens if len(tokens) > 1 else tokens.expand(2, -1)
        many = self._record(tokens, before, shown)
        stream = first_tensor(*many[0])
        assert stream is not None
        held = [_length(layer) for layer in shown.layers] if shown is not None else [0] * len(one)
        return Step(stream, one, many, len(tokens), held, before)

    def advance(self, number: int, new: list[Pair]) -> None:
        """Keys and values that each block added at step `number` (any row's): the next step comes after these."""
        if len(self._shown) == number + 1:
            longer = _shallow(self._shown[number])
            for layer, (keys, values) in zip(longer.layers, new, strict=True):
                layer.update(keys[:1], values[:1])
            self._shown.append(longer)

    def _record(self, tokens: Tensor, before: int, shown: Any) -> list[Call]:
        """Each block's arguments. Blocks hand on what they are given; all around them is the network's own code."""
        root, blocks = self.tower.root, self.tower.blocks
        calls: list[Call] = []

        def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
            calls.append((tuple(map(_mark, args)), {name: _mark(value) for name, value in kwargs.items()}))

        kwargs: dict[str, Any] = {"input_ids": tokens}
        if self.caching:
            kwargs |= {"use_cache": True, "past_key_values": _shallow(shown)}
            if takes(root, "position_ids"):
                positions = torch.arange(before, before + tokens.shape[1], device=tokens.device)
                kwargs["position_ids"] = positions.expand(len(tokens), -1)
        elif takes(root, "use_cache"):
            kwargs["use_cache"] = False
        handles = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
        try:
            with skipping(self.sites, self.tower, len(blocks) - 1, None, {}):
                root(**kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return calls

    def block(
        self, step: Step, index: int, stream: Tensor, sequence: Tensor, own: Pair | None, drop: bool = False
    ) -> tuple[Tensor, Pair | None]:
        """Block `index` on rows: [row, token, width], and the keys and values that it added.

        - stream: [row, token, width]; sequence: [row], which of the step's sequences each row goes on with.
        - own: the rows' keys and values from the patched token on; `drop` hides the patched token."""
        cache = self._cache(step, index, own, drop, False)
        output = first_output(self._call(step, index, stream, sequence, cache))
        assert output is not None
        return output, cache.new

    def keys(self, step: Step, index: int, stream: Tensor) -> Pair:
        """Keys and values that block `index` makes of rows [row, token, width]; nothing else of it runs."""
        cache = self._cache(step, index, None, False, True)
        with contextlib.suppress(Enough):
            self._call(step, index, stream, stream.new_zeros(len(stream), dtype=torch.long), cache)
        assert cache.new is not None
        return cache.new

    def _cache(self, step: Step, index: int, own: Pair | None, drop: bool, only_keys: bool) -> RowCache:
        return RowCache(self.prefix[index], own, step.held[index], step.seen, drop, only_keys)

    def _call(self, step: Step, index: int, stream: Tensor, sequence: Tensor, cache: RowCache) -> Any:
        block = self.tower.blocks[index]
        (args, kwargs), many = step.one[index], step.many[index]
        args = tuple(_rows(a, b, sequence, step.rows) for a, b in zip(args, many[0], strict=True))
        kwargs = {name: _rows(value, many[1][name], sequence, step.rows) for name, value in kwargs.items()}
        args, kwargs = Tap(block, "in").put_input(stream, args, kwargs)
        if cache.hole is not None:
            names = list(inspect.signature(type(block).forward).parameters)[1:]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            keys = step.held[index] + stream.shape[1]
            masks = {id(m) for n, m in given.items() if "mask" in n and isinstance(m, Tensor) and m.shape[-1] == keys}
            cache.cut = not masks
            args = tuple(_hide(a, cache.hole) if id(a) in masks else a for a in args)
            kwargs = {n: _hide(value, cache.hole) if id(value) in masks else value for n, value in kwargs.items()}
        args = tuple(cache if a is CACHE else a for a in args)
        return block(*args, **{name: cache if value is CACHE else value for name, value in kwargs.items()})


def _mark(value: Any) -> Any:
    return CACHE if hasattr(value, "get_seq_length") else value


def _shallow(cache: Any) -> Any:
    """A cache of its own that holds the same tensors: what its layers do makes new ones."""
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    return made


def _length(layer: Any) -> int:
    return layer.keys.shape[-2] if layer.is_initialized and layer.keys is not None and layer.keys.numel() else 0


def _rows(one: Any, many: Any, sequence: Tensor, count: int) -> Any:
    """An argument of a block for each row, from what the block gets for one sequence and for `count` of them: where
    there is a part for each sequence (positions, masks, ALiBi's slopes [batch * head, 1, token]), one for each row."""
    if isinstance(one, (tuple, list)):
        return type(one)(_rows(a, b, sequence, count) for a, b in zip(one, many, strict=True))
    if not isinstance(one, Tensor) or not isinstance(many, Tensor) or one.dim() != many.dim():
        return one
    axes = [a for a in range(one.dim()) if one.shape[a] != many.shape[a]]
    if len(axes) != 1 or many.shape[axes[0]] != one.shape[axes[0]] * count:
        return one
    axis = axes[0]
    if one.shape[axis] == 1 and not bool(sequence.any()):
        shape = [-1] * one.dim()
        shape[axis] = len(sequence)
        return many.narrow(axis, 0, 1).expand(shape)
    return many.unflatten(axis, (count, -1)).index_select(axis, sequence).flatten(axis, axis + 1)


def _hide(mask: Tensor, hole: int) -> Tensor:
    """A mask [..., key] for one new token, which sees all keys, with one key hidden; which value shows and which hides
    differs between networks: the last key, the token itself, shows."""
    mask = mask.clone()
    mask[..., hole] = ~mask[..., -1] if mask.dtype is torch.bool else torch.finfo(mask.dtype).min
    return mask
