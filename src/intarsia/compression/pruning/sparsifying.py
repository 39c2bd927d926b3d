"""The steps of `compression.prune`: which layers, each one's inputs, and the zeros."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.checking import check_plain, check_reads_text
from intarsia.compression.linears import Linear
from intarsia.compression.pruning import masks
from intarsia.compression.pruning.sparsegpt import sparsegpt
from intarsia.compression.statistics import LayerStats, collect, relative_error, told
from intarsia.compression.targets import targets
from intarsia.compression.walking import Walk
from intarsia.errors import BadInput, Note
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.compression.pruning.technique import PruneConfig
    from intarsia.data import Text
    from intarsia.models import Model

WHO = "compression.prune"
DEFAULT = 0.5
Share = float | tuple[int, int]


def prune(model: Model, config: PruneConfig, calibration: Sequence[Text] | None) -> Model:
    """See `intarsia.compression.pruning.technique.prune`."""
    check_plain(model, WHO)
    _check(config)
    new = model.copy()
    reads = config.method != "magnitude"
    layers, kept = targets(new, "prune", config.skip, config.ratios, main_only=reads)
    shares = {layer.name: _share(layer.name, config) for layer in layers}
    _check_layers(layers, shares, config)
    facts: dict[str, dict[str, float]] = {}
    if reads:
        from intarsia.compression.calibration import calibration_windows

        windows = calibration_windows(model, calibration, config.tokens)
        check_reads_text(model, windows, WHO)
        facts = _with_text(new, config, layers, shares, windows)
        if not facts:
            raise BadInput(f"{WHO}: the text reached no layer; method magnitude needs none")
        kept |= {layer.name: "the text never reached it" for layer in layers if layer.name not in facts}
    elif config.scope == "global":
        gone = masks.lowest_of_all([layer.weight.abs().float() for layer in layers], config.sparsity or DEFAULT)
        facts = {layer.name: _put(layer, layer.weight, g) for layer, g in zip(layers, gone, strict=True)}
    else:
        for layer in track(layers, "pruning"):
            weight = layer.weight
            facts[layer.name] = _put(layer, weight, by_size(weight, shares[layer.name]))
    warnings.warn("zeros alone make nothing faster or smaller in PyTorch on a CPU: the shapes are the same", Note, 3)
    return _changed(new, config, layers, facts, kept)


def _check(config: PruneConfig) -> None:
    """Raise `BadInput` for settings that contradict each other."""
    if config.pattern is not None:
        kept, group = masks.pattern_of(config.pattern)
        if config.sparsity is not None or config.ratios:
            raise BadInput(f"pattern {config.pattern} is a sparsity of {1 - kept / group:.0%}: give it, or a share")
    if config.scope == "global" and (config.method != "magnitude" or config.pattern is not None or config.ratios):
        raise BadInput("scope global compares sizes over all layers: it goes with method magnitude and one sparsity")
    for pattern, ratio in config.ratios.items():
        if not 0 <= ratio < 1:
            raise BadInput(f"ratios: {pattern}={ratio}: a share from 0 to below 1 is wanted")


def _share(name: str, config: PruneConfig) -> Share:
    """What part of a layer goes."""
    if config.pattern is not None:
        return masks.pattern_of(config.pattern)
    default = DEFAULT if config.sparsity is None else config.sparsity
    return next((ratio for pattern, ratio in config.ratios.items() if fnmatchcase(name, pattern)), default)


def _check_layers(layers: Sequence[Linear], shares: Mapping[str, Share], config: PruneConfig) -> None:
    for layer in layers:
        share = shares[layer.name]
        if isinstance(share, tuple) and layer.shape[1] % share[1]:
            raise BadInput(
                f"pattern {config.pattern}: the {layer.shape[1]} inputs of '{layer.name}' are not divisible by "
                f"{share[1]}; skip it, or give another pattern"
            )


def _with_text(
    model: Model, config: PruneConfig, layers: Sequence[Linear], shares: Mapping[str, Share],
    windows: Sequence[Sequence[int]],
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Prune by what the layers are given; the facts of each by its name, without those that never ran."""
    facts = {}

    def change(some: Sequence[Linear], stats: Mapping[str, LayerStats]) -> None:
        for layer in some:
            if layer.name in stats and stats[layer.name].count:
                facts[layer.name] = _prune_one(layer, stats[layer.name], shares[layer.name], config)

    if not config.sequential:
        stats = collect(model, layers, windows)
        change(list(track(layers, "pruning")), stats)
        return facts
    walk = Walk(model, windows)
    for index in walk.blocks("pruning"):
        some = [layer for layer in layers if layer.block == index]
        change(some, walk.look(some))
    told(walk.seen)
    return facts


def _prune_one(layer: Linear, stats: LayerStats, share: Share, config: PruneConfig) -> dict[str, float]:
    weight = layer.weight.float()
    if config.method == "sparsegpt":
        new, gone = sparsegpt(weight, stats.moment, share, damping=config.damping, block=config.block)
    else:
        new, gone = weight, by_input(weight, stats.moment.diagonal(), share)
    return _put(layer, new, gone, stats.moment)


def by_size(weight: Tensor, share: Share) -> Tensor:
    """Bool [out, in]: the smallest weights, of the whole matrix or of each group of neighbours."""
    size = weight.abs().float()
    if isinstance(share, tuple):
        return masks.lowest_of_groups(size, *share)
    return masks.lowest(size.reshape(1, -1), share).view_as(size)


def by_input(weight: Tensor, square: Tensor, share: Share) -> Tensor:
    """Bool [out, in]: the lowest |W_ij| sqrt(H_jj), of each row or of each group of neighbours.

    - square: [in], the mean square of each input."""
    score = weight.abs() * square.sqrt()
    return masks.lowest_of_groups(score, *share) if isinstance(share, tuple) else masks.lowest(score, share)


def _put(layer: Linear, weight: Tensor, gone: Tensor, moment: Tensor | None = None) -> dict[str, float]:
    """Put the weights in place with their zeros; facts about the layer."""
    before = layer.weight.float().clone()
    layer.set(weight.masked_fill(gone, 0))
    after = layer.weight.float()
    facts = {"sparsity": float((after == 0).double().mean())}
    if moment is not None:
        facts["error"] = relative_error(after - before, before, moment)
    return facts


def _changed(
    model: Model, config: PruneConfig, layers: Sequence[Linear], facts: dict[str, Any], kept: dict[str, str]
) -> Model:
    numbers = {layer.name: layer.weight.numel() for layer in layers if layer.name in facts}
    zeros = sum(facts[name]["sparsity"] * n for name, n in numbers.items())
    parameters = list(model.network.parameters())
    with torch.no_grad():
        none = sum(int((p == 0).sum()) for p in parameters)
    changed = model.with_network(model.network, technique=WHO, config=config.model_dump(mode="json"))
    changed.extras[WHO] = {
        "method": config.method,
        "pattern": config.pattern,
        "sparsity": zeros / sum(numbers.values()),
        "zeros": none / sum(p.numel() for p in parameters),
        "layers": facts,
        "kept": dict(sorted(kept.items())),
    }
    return changed
