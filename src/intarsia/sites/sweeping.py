"""`sweep`: every state of one prompt patched into every layer of another, in one call.

One by one this is (source layers x target layers) runs of the target prompt. Here
- the source runs once, and stops after the last layer asked for;
- the tokens of the target before the patched one are the same in every cell: they run once, into a key-value cache;
- from the patched token on, the blocks below a patch are the same too: they run once. Cells are sorted by target layer,
  and block j runs on just those that were patched below it;
- the final norm and head run once over all cells, and generation goes on from a cache put together from the parts.

The contract: what comes out equals the naive runs (`run` with a `Replace`) to rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.progress import tell
from intarsia.sites.inputs import Batch, Inputs, prepare, takes
from intarsia.sites.probe import first_output, first_tensor
from intarsia.sites.reading import read
from intarsia.sites.resuming import unembed
from intarsia.sites.sitemap import of
from intarsia.sites.towers import Tower

if TYPE_CHECKING:
    from intarsia.models import Model

Mapping = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Sweep:
    """What every cell gave. Axes: source prompt S, source layer, target layer.

    - logits: at the last target token, [S, source layers, target layers, vocabulary], or None when not kept.
    - top: the most likely next token there, [S, source layers, target layers].
    - ids: generated tokens [S, source layers, target layers, token] (the first is `top`), or None.
    - texts: the same as text, nested lists, when the model has a tokenizer.
    - source_layers, target_layers: the layers of the two axes."""

    top: Tensor
    logits: Tensor | None
    ids: Tensor | None
    texts: list | None
    source_layers: list[int]
    target_layers: list[int]


def sweep(
    model: Model,
    sources: Inputs,
    target: Inputs,
    *,
    source_at: int | Sequence[int] = -1,
    target_at: int = -1,
    source_layers: Sequence[int] | None = None,
    target_layers: Sequence[int] | None = None,
    mapping: Mapping | None = None,
    states: Tensor | None = None,
    source_model: Model | None = None,
    max_new_tokens: int = 0,
    keep_logits: bool = False,
    chunk: int = 300,
) -> Sweep:
    """Patch `resid_post` of each source layer into `resid_post` of each target layer, for all pairs.

    - sources: one prompt or several; `source_at` their position (one for all, or one a prompt).
    - target: one prompt, patched at `target_at`.
    - source_layers, target_layers: defaults are all.
    - mapping: `f(states [S, width], source layer, target layer) -> [S, width]`; identity when left out.
    - states: [S, source layers, width], instead of reading them from `sources`.
    - source_model: where the sources run; by default in `model` itself.
    - max_new_tokens: greedy tokens to generate from each cell; 0 gives the next token only.
    - keep_logits: keep every cell's logits (S x layers x layers x vocabulary floats).
    - chunk: cells that run at once; it bounds memory, not results.

    Source: Ghandeharioun et al. 2024 (Patchscopes) for the operator. Raises `BadInput` for positions or layers that do
    not exist, and for target networks that are not causal language models."""
    sites = of(model)
    tower = sites.main
    if tower.head_root is None or getattr(model.network.config, "is_encoder_decoder", False) or not _causal(model):
        raise BadInput("sweep: the target must be a causal language model")
    if "cross_out" in sites.wiring[tower.name][0].taps:
        raise BadInput("sweep: a target with cross-attention is not supported")
    reader = source_model or model
    depth, source_depth = len(tower.blocks), len(of(reader).blocks)
    from_layers = _layers(source_layers, source_depth, "source")
    to_layers = _layers(target_layers, depth, "target")
    if states is None:
        states = _source_states(reader, sources, source_at, from_layers)
    if states.dim() != 3 or states.shape[1] != len(from_layers):
        raise BadInput(f"sweep: states must be [sources, {len(from_layers)}, width], were {list(states.shape)}")
    batch = prepare(model, target)
    if batch.size != 1:
        raise BadInput(f"sweep: one target prompt is wanted, {batch.size} were given")
    ids = batch.kwargs["input_ids"]
    length = ids.shape[1]
    if not -length <= target_at < length:
        raise BadInput(f"sweep: target position {target_at} is outside the target, which has {length} tokens")
    position = target_at % length

    with torch.no_grad(), sites.lock:
        base = _TargetRun(model, tower, batch, position)
        if max_new_tokens > 1 and not base.caching:
            raise BadInput(
                f"sweep: {type(model.network).__name__} keeps more than keys and values between tokens: only the next "
                "token can be had (max_new_tokens=1)"
            )
        sources_count, froms = states.shape[0], range(len(from_layers))
        cells = [(t, s, f) for t in range(len(to_layers)) for s in range(sources_count) for f in froms]
        vectors = _vectors(states.to(base.dtype), from_layers, to_layers, mapping, tower.width)
        tops, kept, generated = [], [], []
        for start in range(0, len(cells), chunk):
            part = cells[start : start + chunk]
            tell("sweep", start, len(cells))
            at_layer = [to_layers[t] for t, _, _ in part]
            patch = torch.stack([vectors[t, s, f] for t, s, f in part])
            hidden, cache = base.cells(patch, at_layer, keep_cache=max_new_tokens > 1)
            logits = unembed(model, hidden[:, -1])
            tops.append(logits.argmax(-1))
            if keep_logits:
                kept.append(logits)
            if max_new_tokens:
                generated.append(_decode(model, tops[-1], cache, length, max_new_tokens))
        tell("sweep", len(cells), len(cells), finished=True)

    shape = (len(to_layers), states.shape[0], len(from_layers))

    def arrange(parts: list[Tensor]) -> Tensor:
        whole = torch.cat(parts)
        return whole.reshape(*shape, *whole.shape[1:]).movedim(0, 2)

    new = arrange(generated) if generated else None
    texts = _texts(model, new) if new is not None and model.tokenizer is not None else None
    return Sweep(arrange(tops), arrange(kept) if kept else None, new, texts, from_layers, to_layers)


class _TargetRun:
    """The target prompt run once, with everything the cells share: the prefix's cache, what each block was called with,
    and the unpatched states."""

    def __init__(self, model: Model, tower: Tower, batch: Batch, position: int):
        self.tower = tower
        self.caching = takes(model.network, "past_key_values")
        if not (self.caching and self._run(model.network, batch, position)):
            self.caching = False
            self._run(model.network, batch, position)
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
        old = first_tensor(args, kwargs)
        if args and args[0] is old:
            args = (stream, *args[1:])
        else:
            kwargs = {**kwargs, **{k: stream for k, v in kwargs.items() if v is old}}
        output = first_output(block(*args, **kwargs))
        assert output is not None
        return output, layer


class _OneLayer:
    """The cache of one block for n cells: the shared prefix, expanded, and what the block adds."""

    def __init__(self, prefix: Any, index: int, count: int):
        self.layer = copy.copy(prefix.layers[index])
        if self.layer.is_initialized:
            self.layer.keys = self.layer.keys.expand(count, -1, -1, -1)
            self.layer.values = self.layer.values.expand(count, -1, -1, -1)
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


def _decode(model: Model, first: Tensor, cache: Any, length: int, count: int) -> Tensor:
    """Greedy tokens [cell, count] from a cache that holds `length` tokens a cell; `first` is the first of them."""
    network = model.network
    stop = network.generation_config.eos_token_id if network.generation_config is not None else None
    ends = torch.tensor([stop] if isinstance(stop, int) else list(stop or []), device=first.device)
    pad = getattr(model.tokenizer, "pad_token_id", None) or 0
    ids = [first]
    done = torch.isin(first, ends)
    for step in range(count - 1):
        if bool(done.all()):
            ids.append(torch.full_like(first, pad))
            continue
        kwargs: dict[str, Any] = {"input_ids": ids[-1][:, None], "past_key_values": cache, "use_cache": True}
        if takes(network, "position_ids"):
            kwargs["position_ids"] = torch.full_like(kwargs["input_ids"], length + step)
        output = network(**kwargs)
        cache = output.past_key_values
        following = output.logits[:, -1].argmax(-1)
        ids.append(torch.where(done, torch.full_like(following, pad), following))
        done = done | torch.isin(following, ends)
    return torch.stack(ids, dim=1)


def _source_states(model: Model, sources: Inputs, at: int | Sequence[int], layers: list[int]) -> Tensor:
    prefix = of(model).main.prefix
    names = [f"{prefix}layers.{i}.resid_post" for i in layers]
    acts = read(model, sources, names)
    mask = acts.mask
    positions = [at] * mask.shape[0] if isinstance(at, int) else list(at)
    if len(positions) != mask.shape[0]:
        raise BadInput(f"sweep: {len(positions)} source positions for {mask.shape[0]} source prompts")
    rows = []
    for row, position in enumerate(positions):
        real = mask[row].nonzero().flatten()
        if not -len(real) <= position < len(real):
            raise BadInput(f"sweep: source position {position} is outside prompt {row}, which has {len(real)} tokens")
        rows.append(torch.stack([acts[n][row, real[position]] for n in names]))
    return torch.stack(rows)


def _vectors(
    states: Tensor, from_layers: list[int], to_layers: list[int], mapping: Mapping | None, width: int
) -> Tensor:
    """[target layer, source, source layer, width of the target]."""
    if mapping is None:
        vectors = states[None].expand(len(to_layers), -1, -1, -1)
    else:
        vectors = torch.stack(
            [torch.stack([mapping(states[:, f], a, b) for f, a in enumerate(from_layers)], dim=1) for b in to_layers]
        )
    if vectors.shape[-1] != width:
        raise BadInput(f"sweep: states are {vectors.shape[-1]} wide, the target is {width}: give a mapping")
    return vectors


def _layers(given: Sequence[int] | None, depth: int, which: str) -> list[int]:
    if given is None:
        return list(range(depth))
    for layer in given:
        if not -depth <= layer < depth:
            raise BadInput(f"sweep: {which} layer {layer} does not exist (0 to {depth - 1})")
    chosen = sorted({layer % depth for layer in given})
    if not chosen:
        raise BadInput(f"sweep: no {which} layers given")
    return chosen


def _causal(model: Model) -> bool:
    return hasattr(model.network, "can_generate") and model.network.can_generate()


def _texts(model: Model, ids: Tensor) -> list:
    if ids.dim() == 1:
        return model.tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[union-attr,return-value]
    return [_texts(model, row) for row in ids]
