"""Rounding that has seen text: scales folded into the network first (AWQ), then each block rounded on what the rounded
blocks before it give (GPTQ)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.linears import Linear
from intarsia.compression.quantization.folding import folds
from intarsia.compression.quantization.gptq import DAMPING, gptq
from intarsia.compression.quantization.grids import Grid, from_grid, round_to
from intarsia.compression.quantization.scaling import awq, output_error
from intarsia.compression.statistics import Collector, LayerStats, batches, collect
from intarsia.progress import track
from intarsia.sites import read, resume, watching

if TYPE_CHECKING:
    from intarsia.models import Model

Codes = tuple[Tensor, Tensor, Tensor | None]


@dataclass
class Rounded:
    """- codes: of each layer by name. errors: mean squared change of a layer's outputs over the mean square of them.
    - scaled: names of the layers before whose input scales were folded, with the exponent. unscaled: the others."""

    codes: dict[str, Codes] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    scaled: dict[str, float] = field(default_factory=dict)
    unscaled: list[str] = field(default_factory=list)


def calibrated(
    model: Model, layers: Sequence[Linear], grids: Mapping[str, Grid], windows: Sequence[Sequence[int]], *,
    scale: bool = True, feedback: bool = True, sequential: bool = True, damping: float = DAMPING,
) -> Rounded:  # fmt: skip
    """Round layers of a network, in place: their weights become the rounded ones.

    - grids: by name. scale: AWQ. feedback: GPTQ, else the nearest point. sequential: a block's inputs are those that
      the rounded blocks before it give; else those of the network as it was (one pass over the text)."""
    out = Rounded()
    stats = collect(model, layers, windows) if scale or not sequential or any(x.block is None for x in layers) else {}
    if scale:
        fold_scales(model, layers, grids, stats, out)
        if not sequential:
            stats = collect(model, layers, windows)  # of the scaled inputs
    inside = [layer.block for layer in layers if layer.block is not None]
    for layer in layers:
        if layer.block is None or not sequential:
            _round(layer, grids[layer.name], stats.get(layer.name), feedback, damping, out)
    if sequential and inside:
        blocks = range(min(inside), max(inside) + 1)
        _by_block(model, layers, grids, windows, blocks, feedback, damping, out)
    return out


def fold_scales(
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


@torch.no_grad()
def _by_block(
    model: Model, layers: Sequence[Linear], grids: Mapping[str, Grid], windows: Sequence[Sequence[int]],
    blocks: range, feedback: bool, damping: float, out: Rounded,
) -> None:  # fmt: skip
    prefix = model.sites.main.prefix
    some = batches(model, windows)
    before = f"{prefix}layers.{blocks[0]}.resid_pre"
    states = [read(model, batch, before)[before] for batch in some]
    for block in track(blocks, "rounding blocks"):
        mine = [layer for layer in layers if layer.block == block]
        collector, after = Collector(), f"{prefix}layers.{block}.resid_post"
        below = f"{prefix}layers.{block - 1}" if block else f"{prefix}embed"
        with watching(model, {layer.name: layer.module for layer in mine}, collector.seen):
            for batch, state in zip(some, states, strict=True):
                collector.next(batch.mask)
                resume(model, batch, below, state=state, at=after)
        stats = collector.stats()
        for layer in mine:
            _round(layer, grids[layer.name], stats.get(layer.name), feedback, damping, out)
        states = [
            resume(model, batch, below, state=state, at=after)[after] for batch, state in zip(some, states, strict=True)
        ]


def _round(layer: Linear, grid: Grid, stats: LayerStats | None, feedback: bool, damping: float, out: Rounded) -> None:
    weight = layer.weight.float()
    if stats is None or not stats.count or not feedback:  # a layer that no text reached has the nearest points
        codes = round_to(weight, grid)
    else:
        codes = gptq(weight, stats.moment, grid, damping=damping)
    new = from_grid(*codes, grid, torch.float32)
    if stats is not None and stats.count:
        whole = output_error(weight, stats.moment)
        out.errors[layer.name] = output_error(new - weight, stats.moment) / whole if whole else 0.0
    layer.set(new)
    out.codes[layer.name] = codes
