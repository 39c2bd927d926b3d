"""The target prompt of a sweep: run once, then resumed for many patched cells at once on a shared prefix."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.inputs import Batch, takes
from intarsia.sites.probe import first_output
from intarsia.sites.taps import Tap
from intarsia.sites.towers import Tower


class TargetRun:
    """The target prompt run once, with everything the cells share: the prefix's cache, what each block was called with,
    and the unpatched states."""

    def __init__(self, network: nn.Module, tower: Tower, batch: Batch, position: int):
        self.tower = tower
        self.caching = takes(network, "past_key_values")
        if not (self.caching and self._run(network, batch, position)):
            self.caching = False
            self._run(network, batch, position)
        self.dtype = first_output(self.outputs[0]).dtype  # type: ignore[union-attr]

    def _run(self, network: nn.Module, batch: Batch, position: int) -> bool:
        """Record the run. With caching, False when the cache is not made of keys and values (Mamba and its kin)."""
        tower = self.tower
        ids = batch.kwargs["input_ids"]
        self.prefix: Any = None
        start = position if self.caching else 0
        self.offset = position - start
        prefix_cache = None
        if self.caching and position > 0:
            root = tower.root if tower.root.get_input_embeddings() is not None else network
            prefix_cache = getattr(root(input_ids=ids[:, :position], use_cache=True), "past_key_values", None)
            if not _keyed(prefix_cache):
                return False
            self.prefix = copy.deepcopy(prefix_cache)
        calls: list[tuple[tuple, dict[str, Any]]] = []
        handles: list[Any] = []

        def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
            calls.append((args, dict(kwargs)))

        self.outputs: list[Any] = []

        def after(module: nn.Module, args: tuple, output: Any) -> None:
            self.outputs.append(output)

        try:
            for block in tower.blocks:
                handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(block.register_forward_hook(after))
            kwargs: dict[str, Any] = {"input_ids": ids[:, start:]}
            if self.caching:
                kwargs |= {"use_cache": True, "past_key_values": prefix_cache}
                if takes(tower.root, "position_ids"):
                    kwargs["position_ids"] = torch.arange(start, ids.shape[1], device=ids.device)[None]
            elif takes(tower.root, "use_cache"):
                kwargs["use_cache"] = False
            result = tower.root(**kwargs)
        finally:
            for handle in handles:
                handle.remove()
        self.calls = calls
        self.cache = getattr(result, "past_key_values", None) if self.caching else None
        if self.caching and not _keyed(self.cache):
            return False
        if self.prefix is None and self.cache is not None:
            self.prefix = copy.deepcopy(self.cache)  # empty layers of the right kinds (sliding windows)
            for layer in self.prefix.layers:
                layer.reset()
        return True

    def cells(self, patch: Tensor, at_layer: list[int], keep_cache: bool) -> tuple[Tensor, Any]:
        """Final states [cell, token, width] of cells sorted by target layer, and their cache when it is kept."""
        active: Tensor | None = None
        cache = copy.deepcopy(self.cache) if keep_cache else None
        count = len(at_layer)
        joined = 0
        for index, block in enumerate(self.tower.blocks):
            if active is not None:
                active, layer = self._block(index, block, active)
                if cache is not None:
                    _merge(cache.layers[index], layer, count)
            elif cache is not None:
                _expand(cache.layers[index], count)
            joining = at_layer.count(index)
            if joining:
                stream = first_output(self.outputs[index]).expand(joining, -1, -1).clone()  # type: ignore[union-attr]
                stream[:, self.offset] = patch[joined : joined + joining]
                active = stream if active is None else torch.cat([active, stream])
                joined += joining
        assert active is not None
        return active, cache

    def _block(self, index: int, block: nn.Module, stream: Tensor) -> tuple[Tensor, Any]:
        args, kwargs = self.calls[index]
        args = tuple(_widen("", value, stream.shape[0]) for value in args)
        kwargs = {name: _widen(name, value, stream.shape[0]) for name, value in kwargs.items()}
        layer = None
        if self.caching:
            name = next((k for k in ("past_key_values", "past_key_value", "layer_past") if k in kwargs), None)
            cache = _OneLayer(self.prefix, index, stream.shape[0])
            layer = cache
            if name is not None:
                kwargs = {**kwargs, name: cache}
            else:
                args = tuple(cache if a is self.cache else a for a in args)
        args, kwargs = Tap(block, "in").put_input(stream, args, kwargs)
        output = first_output(block(*args, **kwargs))
        assert output is not None
        return output, layer


class _OneLayer:
    """The cache of one block for n cells: the shared prefix, expanded, and what the block adds."""

    def __init__(self, prefix: Any, index: int, count: int):
        self.layer = copy.copy(prefix.layers[index])
        if self.layer.is_initialized:
            _expand(self.layer, count)
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int = 0, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        result = self.layer.update(keys, values)
        self.keys, self.values = self.layer.keys, self.layer.values
        return result

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.layer.get_seq_length() if self.layer.is_initialized else 0


def _keyed(cache: Any) -> bool:
    """Whether a cache holds nothing but keys and values."""
    return all(hasattr(layer, "keys") for layer in getattr(cache, "layers", (None,)))


def _widen(name: str, value: Any, count: int) -> Any:
    """An argument of a block called with one row, for `count` rows: masks [1, head, query, key] have to be as many
    where a block checks that (XGLM); ALiBi's slopes are laid out [batch * head, 1, token] (BLOOM)."""
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 4 and value.shape[0] == 1:
        return value.expand(count, -1, -1, -1)
    return value.repeat(count, 1, 1) if name == "alibi" and value.dim() == 3 else value


def _expand(layer: Any, count: int) -> None:
    layer.keys = layer.keys.expand(count, -1, -1, -1)
    layer.values = layer.values.expand(count, -1, -1, -1)


def _merge(layer: Any, own: _OneLayer, count: int) -> None:
    """Cells patched below this block have keys and values of their own; the others share the unpatched ones."""
    rest = count - own.keys.shape[0]  # type: ignore[union-attr]
    layer.keys = torch.cat([own.keys, layer.keys.expand(rest, -1, -1, -1)]) if rest else own.keys
    layer.values = torch.cat([own.values, layer.values.expand(rest, -1, -1, -1)]) if rest else own.values
