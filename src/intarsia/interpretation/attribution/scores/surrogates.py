"""LIME and KernelSHAP: a linear model of what happens when pieces are taken away."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from intarsia.interpretation.attribution.perturbation import KernelShapConfig, LimeConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.attribution.units import masks, pieces, spread
from intarsia.interpretation.explained import Explained


def lime(explained: Explained, settings: LimeConfig, seed: int = 0) -> Scored:
    """Coefficients of a ridge regression on random masks, weighted by how near they are to the whole text."""
    groups = pieces(explained, settings.unit)
    count = len(groups)
    generator = torch.Generator().manual_seed(seed)
    present = torch.ones(settings.samples, count, dtype=torch.bool)  # the first row is the whole text
    for row in present[1:]:
        removed = int(torch.randint(1, count + 1, (1,), generator=generator))
        row[torch.randperm(count, generator=generator)[:removed]] = False
    # The cosine between a mask and the whole: the root of the share that is left.
    distance = 1 - present.double().mean(1).sqrt()
    weights = torch.exp(-((distance / settings.kernel_width) ** 2))
    values = explained.value(masks(explained, groups, present))
    coefficients, intercept = ridge(present.double(), values, weights, settings.ridge)
    fitted = present.double() @ coefficients + intercept
    mean = (weights * values).sum() / weights.sum()
    unexplained = (weights * (values - fitted) ** 2).sum() / (weights * (values - mean) ** 2).sum().clamp(min=1e-300)
    facts = {"fit of the linear model (R²)": float(1 - unexplained)}
    return Scored(spread(explained, groups, coefficients), facts=facts)


def ridge(x: Tensor, y: Tensor, weights: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression with an unpenalised intercept: coefficients [column] and the intercept."""
    total = weights.sum()
    x_mean, y_mean = (weights[:, None] * x).sum(0) / total, (weights * y).sum() / total
    xc, yc = x - x_mean, y - y_mean
    gram = xc.T @ (weights[:, None] * xc) + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    # The pseudo-inverse, for without a penalty few masks leave some directions open.
    coefficients = torch.linalg.lstsq(gram, xc.T @ (weights * yc), driver="gelsd").solution
    return coefficients, y_mean - x_mean @ coefficients


def kernel_shap(explained: Explained, settings: KernelShapConfig, seed: int = 0) -> Scored:
    """Shapley values by least squares over coalitions; exact where `samples` suffice for all 2^pieces of them."""
    groups = pieces(explained, settings.unit)
    count = len(groups)
    ends = torch.tensor([[False] * count, [True] * count])
    empty, full = explained.value(masks(explained, groups, ends))
    total = full - empty
    if count == 1:
        return Scored(spread(explained, groups, total[None]), total=float(total))
    present, weights = coalitions(count, settings.samples, seed)
    values = explained.value(masks(explained, groups, present)) - empty
    scores = _constrained(present.double(), values, weights, total)
    return Scored(spread(explained, groups, scores), total=float(total))


def coalitions(count: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coalitions [n, piece] bool and their weights [n], the whole and the empty one left out.

    Sizes are complete from the outside in (1 and count - 1, 2 and count - 2, ...) as far as `samples` go, with their
    kernel weights; the weight of the sizes inside is shared by random ones, drawn with their complements."""
    kernel = {size: (count - 1) / (size * (count - size)) for size in range(1, count)}
    left = samples
    rows: list[Tensor] = []
    weights: list[float] = []
    sizes = list(range(1, count // 2 + 1))
    while sizes:
        pair = dict.fromkeys((sizes[0], count - sizes[0]))
        if (need := sum(math.comb(count, size) for size in pair)) > left:
            break
        for size in pair:
            for members in itertools.combinations(range(count), size):
                rows.append(_with(count, members))
                weights.append(kernel[size] / math.comb(count, size))
        left -= need
        sizes.pop(0)
    if sizes and left > 1:
        inner = [size for size in range(1, count) if min(size, count - size) >= sizes[0]]
        mass = torch.tensor([kernel[size] for size in inner], dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(left // 2):
            size = inner[int(torch.multinomial(mass, 1, generator=generator))]
            row = _with(count, torch.randperm(count, generator=generator)[:size].tolist())
            rows += [row, ~row]
            weights += [float(mass.sum()) / (left // 2 * 2)] * 2
    return torch.stack(rows), torch.tensor(weights, dtype=torch.float64)


def _with(count: int, members: tuple[int, ...] | list[int]) -> Tensor:
    row = torch.zeros(count, dtype=torch.bool)
    row[list(members)] = True
    return row


def _constrained(present: Tensor, values: Tensor, weights: Tensor, total: Tensor) -> Tensor:
    """Weighted least squares whose coefficients add up to `total`: the last one is what the others leave."""
    left = present[:, :-1] - present[:, -1:]
    target = values - present[:, -1] * total
    gram = left.T @ (weights[:, None] * left)
    first = torch.linalg.lstsq(gram, left.T @ (weights * target), driver="gelsd").solution
    return torch.cat([first, (total - first.sum())[None]])
