"""Values other than whole numbers in a row: the survey's extremes. A weight is s t[c], with a scale s for some weights,
a code c, and the table of a format:

    ternary   t = -1, 0, 1: 2 bits. w' = 0 where |w| <= 0.7 mean|w|, s = mean|w| over the others
              (Li et al. 2016, arXiv 1605.04711, eq. 5 and 6)
    binary    t = -1, 1: 1 bit. s = mean|w| (Rastegari et al. 2016, arXiv 1603.05279, eq. 6)
    power     t = 0, +-1, +-1/2 ... +-1/64: 4 bits. s = 2^round(log2 max|w|); each weight the nearest power of two
              (Ding et al. 2017, LightNN, arXiv 1802.02178, with one term)

Zero is a value of every format but binary, so what was pruned stays pruned."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = {"ternary": 2, "binary": 1, "power": 4}
WHOLE = {"ternary": 1, "binary": 1, "power": 64}
"""What a table's values have to be multiplied by to be whole numbers."""
POWERS = 7  # exponents of a term: with the sign and zero they are 15 of 16 codes
THRESHOLD = 0.7


def table_of(values: str) -> Tensor:
    """The values of the codes, [code] float32."""
    if values == "ternary":
        return torch.tensor([-1.0, 0.0, 1.0])
    if values == "binary":
        return torch.tensor([-1.0, 1.0])
    powers = 2.0 ** -torch.arange(POWERS, dtype=torch.float32)
    return torch.cat((torch.zeros(1), powers, -powers))


def encode(weight: Tensor, values: str) -> tuple[Tensor, Tensor]:
    """Codes [row, weight] uint8 and scales [row, 1] float64 of weights [row, weight] that share a scale by row."""
    wide = weight.detach().double()
    size = wide.abs()
    if values == "ternary":
        large = size > THRESHOLD * size.mean(1, keepdim=True)
        scale = (size * large).sum(1, keepdim=True) / large.sum(1, keepdim=True).clamp(min=1)
        return (wide.sign() * large + 1).to(torch.uint8), scale
    if values == "binary":
        return (wide >= 0).to(torch.uint8), size.mean(1, keepdim=True)
    largest = size.amax(1, keepdim=True)
    scale = torch.where(largest > 0, 2.0 ** largest.log2().round(), torch.ones_like(largest))
    return nearest_power(wide / scale), scale


def nearest_power(values: Tensor) -> Tensor:
    """Code of sign 2^round(log2 |v|); exponents above the window are its largest, and what is nearer to zero than to
    the smallest is zero."""
    size = values.abs()
    smallest = 2.0 ** (1 - POWERS)
    exponent = (-size.clamp(min=smallest).log2().round()).clamp(0, POWERS - 1).to(torch.int64)
    code = 1 + exponent + POWERS * (values < 0)
    return torch.where(size < smallest / 2, torch.zeros_like(code), code).to(torch.uint8)


def nearest(weight: Tensor, values: str) -> Tensor:
    """Codes uint8 of the nearest values of weights over their scale, any shape."""
    table = table_of(values).to(weight)
    return (weight[..., None] - table).abs().argmin(-1).to(torch.uint8)
