"""Rounding that has seen text: scales folded into the network first (AWQ), then each block rounded on what the rounded
blocks before it give (GPTQ); and factors of low rank that make good the rest.

Source of these: Zhang et al. 2024, QERA, arXiv 2410.06040, theorem 1 (W - Q(W) ~ A C in the norm of the inputs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.factorization.factoring import factors, metric
from intarsia.compression.factorization.ranks import saves
from intarsia.compression.linears import Linear
from intarsia.compression.quantization.folding import folds
from intarsia.compression.quantization.gptq import DAMPING, gptq
from intarsia.compression.quantization.grids import ROW, Grid, from_grid, round_to
from intarsia.compression.quantization.mixed import BITS, Mixed, mixed
from intarsia.compression.quantization.scaling import awq
from intarsia.compression.statistics import LayerStats, collect, relative_error, told
from intarsia.compression.walking import Walk
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

Codes = tuple[Tensor, Tensor, Tensor | None]


@dataclass
class Rounded:
    """- codes: of each layer by name. errors: mean squared change of a layer's outputs over the mean square of them.
    - scaled: names of the layers before whose input scales were folded, with the exponent. unscaled: the others.
    - mix: the bits of each layer, where they were chosen. factors: what is added to a rounded matrix, A and C."""

    codes: dict[str, Codes] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    scaled: dict[str, float] = field(default_factory=dict)
    unscaled: list[str] = field(default_factory=list)
    mix: Mixed | None = None
    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def calibrated(
    model: Model, layers: Sequence[Linear], grids: Mapping[str, Grid], windows: Sequence[Sequence[int]], *,
    scale: bool = True, feedback: bool = True, sequential: bool = True, damping: float = DAMPING,
    average: float | None = None, among: Sequence[int] = BITS, rank: int = 0, heads: Sequence[Linear] = (),
) -> Rounded:  # fmt: skip
    """Round layers of a network, in place: their weights become the rounded ones.

    - grids: by name. scale: AWQ. feedback: GPTQ, else the nearest point. sequential: a block's inputs are those that
      the rounded blocks before it give; else those of the network as it was (one pass over the text). average: bits a
      weight in the mean, chosen layer by layer `among` so many, in place of the grids' (see `mixed`). rank: of the
      factors that make good what rounding did; none where they would have as many weights as the layer. heads: output
      heads that are rounded last, on what the rounded network gives them; their inputs are not scaled, they have no
      factors and the bits of their grids."""
    out, given = Rounded(), grids
    if scale:
        _fold(model, layers, grids, collect(model, layers, windows), out)
    if average is not None:
        out.mix = mixed(model, layers, grids, windows, average, among=among, feedback=feedback, damping=damping)
        grids = out.mix.grids
    walked = [layer for layer in layers if sequential and layer.block is not None]
    if at_once := [layer for layer in layers if layer not in walked]:
        stats = collect(model, at_once, windows)
        for layer in at_once:
            _round(layer, grids[layer.name], stats.get(layer.name), feedback, damping, rank, out)
    if walked:
        walk = Walk(model, windows)
        for index in walk.blocks("rounding blocks"):
            if some := [layer for layer in walked if layer.block == index]:
                stats = walk.look(some)
                for layer in some:
                    _round(layer, grids[layer.name], stats.get(layer.name), feedback, damping, rank, out)
        if not scale:
            told(walk.seen)  # else it was told of the same text before
    if heads:
        stats = collect(model, heads, windows)
        for head in heads:
            _round(head, given[head.name], stats.get(head.name), feedback, damping, 0, out)
    return out


def _fold(
    model: Model, layers: Sequence[Linear], grids: Mapping[str, Grid], stats: dict[str, LayerStats], out: Rounded
) -> None:
    """Scale the inputs of layers by AWQ, as far as that costs nothing, and note what was scaled in `out`."""
    for fold in track(folds(model, layers), "scaling inputs"):
        first = fold.consumers[0].name
        if first not in stats:
            continue
        scale, alpha = awq(fold, stats[first], [grids[layer.name] for layer in fold.consumers])
        fold.apply(scale)
        out.scaled |= {layer.name: alpha for layer in fold.consumers}
    out.unscaled = [layer.name for layer in layers if layer.name not in out.scaled]


def _round(
    layer: Linear, grid: Grid, stats: LayerStats | None, feedback: bool, damping: float, rank: int, out: Rounded
) -> None:
    weight = layer.weight.float()
    if stats is None or not stats.count or not feedback:  # a layer that no text reached has the nearest points
        codes = round_to(weight, grid)
    else:
        codes = gptq(weight, stats.moment, grid, damping=damping)
    new = from_grid(*codes, grid, torch.float32)
    if saves(layer.shape, rank):
        left, right = factors(weight - new, metric("whitened", layer.shape[1], stats), rank)
        left, right = (from_grid(*round_to(half.float(), ROW), ROW, torch.float32) for half in (left, right))
        out.factors[layer.name] = left, right
        new = new + left @ right
    if stats is not None and stats.count:
        out.errors[layer.name] = relative_error(new - weight, weight, stats.moment)
    layer.set(new)
    out.codes[layer.name] = codes
