"""`sweep`: every state of one prompt patched into every layer of another, in one call.

One by one this is (source layers x target layers) runs of the target prompt. Here
- the source runs once, and stops after the last layer asked for;
- the tokens of the target before the patched one are the same in every cell: they run once, into a key-value cache;
- from the patched token on, blocks below a patch are shared by all cells that have said the same so far (`cells.py`);
- the final norm and head run over many cells at once, and cells that have ended leave.

The contract: what comes out equals the naive runs (`run` with a `Replace`, token by token) to rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from intarsia.errors import BadInput, did_you_mean
from intarsia.progress import tell
from intarsia.sites.cells import Cells, Contamination
from intarsia.sites.decoding import Gathered, Stop
from intarsia.sites.inputs import Inputs, prepare
from intarsia.sites.reading import read
from intarsia.sites.sitemap import of
from intarsia.sites.targets import TargetRun

if TYPE_CHECKING:
    from intarsia.models import Model
    from intarsia.sites.towers import Tower

Mapping = Callable[[Tensor, int, int], Tensor]
TOKENS, CELLS = 8192, 640  # what runs at once by default, at most: more cells say the same, and share rows


@dataclass(frozen=True)
class Sweep:
    """What every cell gave. Axes: source prompt S, source layer, target layer; or S, pair, when `cells` were given.

    - logits: at the last target token, [S, source layers, target layers, vocabulary], or None when not kept.
    - top: the most likely next token there, [S, source layers, target layers].
    - ids: generated tokens [S, source layers, target layers, token] (the first is `top`), or None. After its end a row
      is filled with the padding token.
    - texts: the same as text, nested lists, when the model has a tokenizer.
    - source_layers, target_layers: the layers of the two axes; of each pair, when `cells` were given."""

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
    stride: int = 1,
    cells: Sequence[tuple[int, int]] | None = None,
    mapping: Mapping | None = None,
    states: Tensor | None = None,
    source_model: Model | None = None,
    max_new_tokens: int = 0,
    contamination: Contamination = "keep",
    stop: Stop | None = None,
    keep_logits: bool = False,
    chunk: int | None = None,
) -> Sweep:
    """Patch `resid_post` of each source layer into `resid_post` of each target layer, for all pairs.

    - sources: one prompt or several; `source_at` their position (one for all, or one a prompt).
    - target: one prompt, patched at `target_at`.
    - source_layers, target_layers: defaults are all; `stride` takes every n-th of either, for a coarse grid.
    - cells: pairs (source layer, target layer) instead of a grid: `[(7, 7)]` is a single patch, `[(l, l) for l in ...]`
      the diagonal. The results' axes are then [S, pair].
    - mapping: `f(states [S, width], source layer, target layer) -> [S, width]`; identity when left out.
    - states: [S, source layers, width], instead of reading them from `sources`; or [S, 1 + layers of the source model,
      width], as `source_states` gives them. With `cells` the second form is wanted.
    - source_model: where the sources run; by default in `model` itself.
    - max_new_tokens: greedy tokens to generate from each cell; 0 gives the next token only.
    - contamination: what generated tokens see at the patched position in the blocks up to the patch, where the
      placeholder token (the "x" or "?" of the target) has left its keys and values although the patch has replaced it
      above: placeholder contamination. `keep`: they stay, as in the paper. `drop`: new tokens do not see that position
      in those blocks. `trajectory`: block j of those up to the patch, l*, gets the keys and values that it makes of the
      source's own stream before block round(j (l + 1) / (l* + 1)), l being the source layer: no deeper than l, but more
      than a single state. The first token is the same in all three; needs an identity mapping.
    - stop: `stop(text so far, number of the source prompt)`, asked after every token; a cell for which it is true
      generates no more.
    - keep_logits: keep every cell's logits (S x layers x layers x vocabulary floats).
    - chunk: cells that run at once; it bounds memory, not results. By default as many as have 8192 tokens from the
      patched one on, and 640 at most.

    Source: Ghandeharioun et al. 2024 (Patchscopes) for the operator. Raises `BadInput` for positions or layers that do
    not exist, and for target networks that are not causal language models."""
    sites = of(model)
    tower, reader = sites.main, source_model or model
    _check(model, contamination, mapping, stop, stride, chunk)
    depth, source_depth = len(tower.blocks), len(of(reader).blocks)
    if cells is None:
        from_layers = _layers(source_layers, source_depth, "source", stride)
        to_layers = _layers(target_layers, depth, "target", stride)
        pairs = [(a, b) for a in from_layers for b in to_layers]
    else:
        if source_layers is not None or target_layers is not None or stride != 1:
            raise BadInput("sweep: give either cells or layers, not both")
        pairs = _pairs(cells, source_depth, depth)
        from_layers, to_layers = [a for a, _ in pairs], [b for _, b in pairs]
    batch = prepare(model, target)
    if batch.size != 1:
        raise BadInput(f"sweep: one target prompt is wanted, {batch.size} were given")
    length = batch.kwargs["input_ids"].shape[1]
    if not -length <= target_at < length:
        raise BadInput(f"sweep: target position {target_at} is outside the target, which has {length} tokens")
    if states is None:
        deepest = max(from_layers)
        wanted = range(-1, deepest + 1) if contamination == "trajectory" else sorted(set(from_layers))
        paths = _source_states(reader, sources, source_at, list(wanted))
    else:
        paths = _given(states, from_layers, source_depth, contamination, cells is not None)
    count = next(iter(paths.values())).shape[0]

    with torch.no_grad(), sites.lock:
        base = TargetRun(model.network, sites, tower, batch, target_at % length)
        if max_new_tokens > 1 and not base.caching:
            raise BadInput(
                f"sweep: {type(model.network).__name__} keeps more than keys and values between tokens: only the next "
                "token can be had (max_new_tokens=1)"
            )
        vectors = _vectors(paths, pairs, mapping, tower, like=base.step(0, base.tokens).stream)
        # Sorted by target layer, so that the cells which are patched below a block come first.
        order = sorted((b, s, c) for c, (_, b) in enumerate(pairs) for s in range(count))
        gathered = Gathered(model, count * len(pairs), max_new_tokens, keep_logits)
        chunk = chunk or max(1, min(CELLS, TOKENS // (length - base.start + max_new_tokens)))
        for start in range(0, len(order), chunk):
            part = order[start : start + chunk]
            tell("sweep", start, len(order))
            running = Cells(
                base,
                patch=torch.stack([vectors[pairs[c]][s] for _, s, c in part]),
                levels=[b for b, _, _ in part],
                position=target_at % length,
                drop=contamination == "drop",
                go_on=max_new_tokens > 1,
            )
            running.begin()
            if contamination == "trajectory" and max_new_tokens > 1:
                running.follow(torch.stack([_trajectory(paths, pairs[c], s, depth) for _, s, c in part]))
            places = [s * len(pairs) + c for _, s, c in part]
            gathered.decode(running, places, [s for _, s, _ in part], stop)
        tell("sweep", len(order), len(order), finished=True)

    shape = (count, len(from_layers), len(to_layers)) if cells is None else (count, len(pairs))
    logits, ids = (t.unflatten(0, shape) if t is not None else None for t in (gathered.logits, gathered.ids))
    texts = gathered.texts()
    nested = _nested(texts, shape) if texts is not None else None
    return Sweep(gathered.top.reshape(shape), logits, ids, nested, from_layers, to_layers)


def source_states(model: Model, sources: Inputs, at: int | Sequence[int] = -1) -> Tensor:
    """The residual stream of each source prompt at one position: [source, 1 + layers, width], the embeddings first.

    `at` is one position for all or one a prompt. Raises `BadInput` for a position outside its prompt."""
    paths = _source_states(model, sources, at, list(range(-1, len(of(model).blocks))))
    return torch.stack([paths[layer] for layer in sorted(paths)], dim=1)


def _source_states(model: Model, sources: Inputs, at: int | Sequence[int], layers: list[int]) -> dict[int, Tensor]:
    """By layer (-1: the embeddings): [source, width]."""
    prefix = of(model).main.prefix
    names = {i: f"{prefix}layers.{i}.resid_post" if i >= 0 else f"{prefix}embed" for i in layers}
    acts = read(model, sources, list(names.values()))
    mask = acts.mask
    positions = [at] * mask.shape[0] if isinstance(at, int) else list(at)
    if len(positions) != mask.shape[0]:
        raise BadInput(f"sweep: {len(positions)} source positions for {mask.shape[0]} source prompts")
    columns = []
    for row, position in enumerate(positions):
        real = mask[row].nonzero().flatten()
        if not -len(real) <= position < len(real):
            raise BadInput(f"sweep: source position {position} is outside prompt {row}, which has {len(real)} tokens")
        columns.append(int(real[position]))
    return {layer: acts[name][range(len(columns)), columns] for layer, name in names.items()}


def _given(states: Tensor, layers: list[int], depth: int, contamination: str, in_pairs: bool) -> dict[int, Tensor]:
    """The same from `states` as given."""
    if states.dim() == 3 and states.shape[1] == 1 + depth:
        return {layer: states[:, 1 + layer] for layer in range(-1, depth)}
    if contamination == "trajectory" or in_pairs:
        why = "contamination='trajectory'" if contamination == "trajectory" else "cells"
        raise BadInput(
            f"sweep: with {why} states must be [sources, {1 + depth}, width], as source_states gives them: the "
            f"embeddings and every layer; were {list(states.shape)}"
        )
    if states.dim() != 3 or states.shape[1] != len(layers):
        raise BadInput(f"sweep: states must be [sources, {len(layers)}, width], were {list(states.shape)}")
    return {layer: states[:, i] for i, layer in enumerate(layers)}


def _vectors(
    paths: dict[int, Tensor], pairs: list[tuple[int, int]], mapping: Mapping | None, tower: Tower, like: Tensor
) -> dict[tuple[int, int], Tensor]:
    """What is written, [source, width of the target], for each pair of layers."""
    made = {(a, b): paths[a] if mapping is None else mapping(paths[a], a, b) for a, b in pairs}
    for vector in made.values():
        if vector.shape[-1] != tower.width:
            raise BadInput(f"sweep: states are {vector.shape[-1]} wide, the target is {tower.width}: give a mapping")
    return {pair: vector.to(like) for pair, vector in made.items()}


def _trajectory(paths: dict[int, Tensor], pair: tuple[int, int], source: int, depth: int) -> Tensor:
    """[block, width]: the source's stream before block round(j (l + 1) / (l* + 1)), for each block j up to l*; what
    stands for the blocks above is not used."""
    low, high = pair
    places = [min(round(j * (low + 1) / (high + 1)), low + 1) for j in range(depth)]
    return torch.stack([paths[place - 1][source] for place in places])


def _pairs(cells: Sequence[tuple[int, int]], source_depth: int, depth: int) -> list[tuple[int, int]]:
    pairs = []
    for pair in cells:
        low, high = pair
        _layers([low], source_depth, "source")
        _layers([high], depth, "target")
        pairs.append((low % source_depth, high % depth))
    if not pairs:
        raise BadInput("sweep: no cells given")
    return pairs


def _layers(given: Sequence[int] | None, depth: int, which: str, stride: int = 1) -> list[int]:
    if given is None:
        return list(range(0, depth, stride))
    for layer in given:
        if not -depth <= layer < depth:
            raise BadInput(f"sweep: {which} layer {layer} does not exist (0 to {depth - 1})")
    chosen = sorted({layer % depth for layer in given})
    if not chosen:
        raise BadInput(f"sweep: no {which} layers given")
    return chosen[::stride]


def _check(
    model: Model, contamination: str, mapping: Mapping | None, stop: Stop | None, stride: int, chunk: int | None
) -> None:
    tower = of(model).main
    if tower.head_root is None or getattr(model.network.config, "is_encoder_decoder", False) or not _causal(model):
        raise BadInput("sweep: the target must be a causal language model")
    if "cross_out" in of(model).wiring[tower.name][0].taps:
        raise BadInput("sweep: a target with cross-attention is not supported")
    modes = get_args(Contamination)
    if contamination not in modes:
        hint = did_you_mean(str(contamination), modes)
        raise BadInput(f"sweep: contamination '{contamination}' is not known: give one of {', '.join(modes)}{hint}")
    if contamination == "trajectory" and mapping is not None:
        raise BadInput("sweep: contamination='trajectory' needs the source's own states: leave the mapping out")
    if stop is not None and model.tokenizer is None:
        raise BadInput("sweep: stop is asked about text, and the model has no tokenizer")
    for name, value in (("stride", stride), ("chunk", chunk)):
        if value is not None and value < 1:
            raise BadInput(f"sweep: {name} must be 1 at least, was {value}")


def _causal(model: Model) -> bool:
    return hasattr(model.network, "can_generate") and model.network.can_generate()


def _nested(texts: list[str], shape: tuple[int, ...]) -> list:
    if len(shape) == 1:
        return texts
    size = len(texts) // shape[0]
    return [_nested(texts[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]
