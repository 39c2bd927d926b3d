"""How many columns each layer keeps, under one budget of parameters.

With U the directions of a layer (see `factoring`), what is lost by keeping the first r is D = -U_> U_>^T W, U_> the
others; so one change of basis tells the harm of every r:

    tr(G D H D^T) = sum over k, l > r of (U^T G U)_kl (U^T W H W^T U)_kl

with H the inputs' second moment, and G that of the gradients (see `searching.sensitivity`), or the unit matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from intarsia.compression.factorization.factoring import DAMPING, Method, directions, metric
from intarsia.compression.linears import Linear
from intarsia.compression.searching.allocation import allocate
from intarsia.compression.statistics import LayerStats, output_error
from intarsia.errors import BadInput
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.compression.searching.sensitivity import Sensitivity

Rule = Literal["sensitivity", "energy", "uniform"]
SHARES = [step / 20 for step in range(1, 20)]  # of a layer's parameters, that may be kept


@dataclass(frozen=True)
class Ranks:
    """- of: rank by layer, without those that stay dense. unseen: layers that nothing reached, which stay so too.
    - predicted: KL in nats a token that the choice is expected to cost, and uniform, that one share for all layers
      would; None where ranks were not chosen by sensitivity."""

    of: dict[str, int]
    predicted: float | None = None
    uniform: float | None = None
    unseen: frozenset[str] = frozenset()


def rank_of(shape: tuple[int, int], share: float) -> int:
    """The largest rank whose factors have at most `share` of a matrix's parameters: floor(k o i / (o + i))."""
    out, width = shape
    return int(share * out * width / (out + width) * (1 + 1e-12))


def saves(shape: tuple[int, int], rank: int) -> bool:
    """Whether factors of a rank have fewer parameters than the matrix."""
    return rank >= 1 and rank * sum(shape) < shape[0] * shape[1]


def check_budget(layers: Sequence[Linear], keep: float) -> None:
    """Raise `BadInput` where not even one column for every layer keeps the budget."""
    whole = sum(layer.weight.numel() for layer in layers)
    least = sum(sum(layer.shape) for layer in layers)
    if least > keep * whole:
        raise BadInput(f"keep {keep:g}: a rank of 1 everywhere has {least / whole:.1%} of the parameters; keep more")


def same_share(layers: Sequence[Linear], keep: float) -> Ranks:
    """Every layer keeps the same share of its parameters."""
    return Ranks({layer.name: max(1, rank_of(layer.shape, keep)) for layer in layers})


@torch.no_grad()
def chosen(
    layers: Sequence[Linear], keep: float, method: Method, stats: Mapping[str, LayerStats] | None = None,
    heard: Sensitivity | None = None, damping: float = DAMPING,
) -> Ranks:  # fmt: skip
    """The ranks of least harm in sum whose factors keep `keep` of all layers' parameters, dense layers among them.

    - stats: of their inputs; None: the unit matrix stands for each. heard: harms are KL in nats a token; else each is
      the share of a layer's outputs that is lost (its energy)."""
    unseen = frozenset(x.name for x in layers if stats is not None and not (x.name in stats and stats[x.name].count))
    layers, stats = [layer for layer in layers if layer.name not in unseen], stats or {}
    harms, costs, options, even = [], [], [], 0.0
    for layer in track(list(layers), "weighing ranks"):
        curve = harm_of(layer, method, stats.get(layer.name), heard, damping)
        ranks = sorted({r for share in (*SHARES, keep) if saves(layer.shape, r := max(1, rank_of(layer.shape, share)))})
        out, width = layer.shape
        options.append([*ranks, None])
        harms.append([float(curve[r]) for r in ranks] + [0.0])
        costs.append([float(r * (out + width)) for r in ranks] + [float(out * width)])
        even += float(curve[max(1, rank_of(layer.shape, keep))])
    found = allocate(harms, costs, keep * sum(layer.weight.numel() for layer in layers))
    picked = {layer.name: options[n][i] for n, (layer, i) in enumerate(zip(layers, found.chosen, strict=True))}
    of = {name: rank for name, rank in picked.items() if rank is not None}
    return Ranks(of, unseen=unseen) if heard is None else Ranks(of, found.harm, even, unseen)


def harm_of(
    layer: Linear, method: Method, stats: LayerStats | None, heard: Sensitivity | None, damping: float = DAMPING
) -> Tensor:
    """[min(out, in) + 1] float64: the harm of keeping the first r directions, for r from 0."""
    weight = layer.weight.double()
    basis = directions(weight, metric(method, layer.shape[1], stats, damping).to(weight))
    inputs = metric("whitened", layer.shape[1], stats, 0.0).to(weight)
    right = basis.T @ weight
    written = right @ inputs @ right.T
    if heard is None:
        whole = output_error(weight, inputs)
        return _tails(written.diagonal().diag()) / (whole if whole > 0 else 1.0)
    if layer.name not in heard.gradient:
        return written.new_zeros(len(written) + 1)
    gradient = heard.gradient[layer.name].double()
    return _tails(basis.T @ gradient @ basis * written) / 2


def _tails(table: Tensor) -> Tensor:
    """For each r the sum of the rows and columns from r on, of a table [n, n]: [n + 1]."""
    sums = table.flip(0, 1).cumsum(0).cumsum(1).diagonal().flip(0)
    return torch.cat([sums, sums.new_zeros(1)]).clamp(min=0)
