"""How much smaller each input is made before its weights are rounded (the scale is then folded: `folding`).

- AWQ: s_j = m_j^a with m the mean |x| of the input and one a for all layers that read it, the one under which their
  outputs change least; inputs that matter get finer weights. Lin et al. 2024, arXiv 2306.00978, eq. 4 and 5.
- SmoothQuant: s_j = max|x_j|^a / max_i |W_ij|^(1 - a): outliers move from the inputs, which are rounded as well, to the
  weights. Xiao et al. 2023, arXiv 2211.10438, eq. 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from intarsia.compression.quantization.folding import Fold
from intarsia.compression.quantization.grids import Grid, rounded
from intarsia.compression.statistics import LayerStats, output_error

ALPHAS = tuple(i / 8 for i in range(9))
SMALLEST = 1e-4  # of a mean |x|, and of a scale


def awq(fold: Fold, stats: LayerStats, grids: Sequence[Grid], alphas: Sequence[float] = ALPHAS) -> tuple[Tensor, float]:
    """The scale [fold.size] and its a.

    - stats: of the consumers' input. grids: of each consumer. The error is sum tr(D H D^T) over the consumers, with D
      what rounding to the nearest point does to a weight."""
    mean = spread(fold, stats.mean, "mean")
    best, chosen, found = float("inf"), torch.ones_like(mean), 0.0
    for alpha in alphas:
        scale = mean.clamp(min=SMALLEST) ** alpha
        scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(min=SMALLEST)
        columns = scale[fold.index]
        error = 0.0
        for layer, grid in zip(fold.consumers, grids, strict=True):
            weight = layer.weight.float()
            change = rounded(weight * columns, grid) / columns - weight
            error += output_error(change, stats.moment)
        if error < best:
            best, chosen, found = error, scale, alpha
    return chosen, found


def smooth(fold: Fold, stats: LayerStats, alpha: float = 0.5) -> Tensor:
    """SmoothQuant's scale [fold.size]; 1 for inputs that are never anything but zero."""
    largest = spread(fold, stats.largest, "amax")
    weight = torch.stack([layer.weight.abs().amax(0).float() for layer in fold.consumers]).amax(0)
    weight = spread(fold, weight, "amax")
    scale = largest.clamp(min=SMALLEST) ** alpha / weight.clamp(min=SMALLEST) ** (1 - alpha)
    return torch.where((largest > 0) & (weight > 0), scale.clamp(min=SMALLEST), 1.0)


def spread(fold: Fold, values: Tensor, how: str) -> Tensor:
    """[in] -> [fold.size]: inputs that share a scale, by their mean or their largest."""
    out = torch.zeros(fold.size, dtype=values.dtype, device=values.device)
    return out.scatter_reduce(0, fold.index.to(values.device), values, how, include_self=False)
