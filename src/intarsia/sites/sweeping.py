"""`sweep`: every state of one prompt patched into every layer of another, in one call.

One by one this is (source layers x target layers) runs of the target prompt. Here
- the source runs once, and stops after the last layer asked for;
- the tokens of the target before the patched one are the same in every cell: they run once, into a key-value cache;
- from the patched token on, the blocks below a patch are the same too: they run once. Cells are sorted by target layer,
  and block j runs on just those that were patched below it;
- the final norm and head run once over all cells, and generation goes on from a cache put together from the parts.

The contract: what comes out equals the naive runs (`run` with a `Replace`) to rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.progress import tell
from intarsia.sites.inputs import Inputs, prepare, takes
from intarsia.sites.reading import read
from intarsia.sites.resuming import unembed
from intarsia.sites.sitemap import of
from intarsia.sites.targets import TargetRun

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
        base = TargetRun(model.network, tower, batch, position)
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
