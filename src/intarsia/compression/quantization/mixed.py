"""Bits where they count: each layer gets its own number of bits, so that the network's predictions change least for so
many bits in the mean.

How much a layer at so many bits changes the predictions is told by its sensitivity to exactly the change that the
rounding makes which will be used; by the layers' own errors it cannot be told at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from intarsia.compression.linears import Linear
from intarsia.compression.quantization.gptq import DAMPING, gptq
from intarsia.compression.quantization.grids import Grid, from_grid, round_to
from intarsia.compression.searching.allocation import allocate
from intarsia.compression.searching.sensitivity import Sensitivity, sensitivity
from intarsia.compression.statistics import some_windows
from intarsia.errors import BadInput
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

BITS = (3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Mixed:
    """- grids: by layer. predicted: KL in nats a token that the choice is expected to cost; uniform: that all layers at
    the nearest whole number of bits would."""

    grids: dict[str, Grid]
    predicted: float
    uniform: float


def mixed(
    model: Model, layers: Sequence[Linear], grids: Mapping[str, Grid], windows: Sequence[Sequence[int]],
    average: float, *, among: Sequence[int] = BITS, feedback: bool = True, damping: float = DAMPING, seed: int = 0,
) -> Mixed:  # fmt: skip
    """Choose the bits of each layer: `average` bits a weight over all of them, scales not counted.

    - grids: by name; their groups are kept. Layers that have a grid of 8 bits with one scale a row keep that group.
    - among: numbers of bits that a layer may have.

    Raises `BadInput` for an average outside of these."""
    among = sorted(set(among))
    check_average(average, among)
    heard = sensitivity(model, layers, some_windows(windows), seed)
    harms = harms_of(layers, grids, heard, feedback, damping, among)
    costs = [[bits * layer.weight.numel() for bits in among] for layer in layers]
    weights = sum(layer.weight.numel() for layer in layers)
    found = allocate(harms, costs, average * weights)
    near = min(range(len(among)), key=lambda i: abs(among[i] - average))
    chosen = {
        layer.name: replace(grids[layer.name], bits=among[i]) for layer, i in zip(layers, found.chosen, strict=True)
    }
    return Mixed(chosen, found.harm, float(sum(row[near] for row in harms)))


def check_average(average: float, among: Sequence[int]) -> None:
    """Raise `BadInput` for an average that no choice among these has."""
    if not min(among) <= average <= max(among):
        raise BadInput(f"average_bits: between {min(among)} and {max(among)} is possible (given: {average:g})")


@torch.no_grad()
def harms_of(
    layers: Sequence[Linear], grids: Mapping[str, Grid], heard: Sensitivity, feedback: bool, damping: float,
    bits: Sequence[int] = BITS,
) -> list[list[float]]:  # fmt: skip
    """[layer][choice of bits] KL in nats a token."""
    out = []
    for layer in track(list(layers), "weighing bits"):
        weight, stats = layer.weight.float(), heard.stats.get(layer.name)
        row = []
        for number in bits:
            grid = replace(grids[layer.name], bits=number)
            if stats is not None and stats.count and feedback:
                codes = gptq(weight, stats.moment, grid, damping=damping)
            else:
                codes = round_to(weight, grid)
            row.append(heard.of(layer.name, from_grid(*codes, grid, torch.float32) - weight))
        out.append(row)
    return out
