"""Number formats for filters. A filter is a row of weights [in * height * width] with one scale s:

    w' = s (t[c_1] + ... + t[c_k])        c: codes of a few bits, t: the format's table of values

    int8 ... int2  t = -2^(b-1) ... 2^(b-1) - 1, s = max|w| / (2^(b-1) - 1)
    ternary        t = -1, 0, 1; w' = 0 where |w| <= 0.7 mean|w|, s = mean|w| over the others
                   (Li et al. 2016, arXiv 1605.04711, eq. 5 and 6)
    binary         t = -1, 1; s = mean|w| (Rastegari et al. 2016, arXiv 1603.05279, eq. 6)
    power          t = 0, +-1, +-1/2 ... +-1/64, s = 2^round(log2 max|w|); k terms, each the nearest power of two of
                   what the ones before left (Ding et al. 2017, LightNN; Ding et al. 2018, FLightNN, arXiv
                   1904.02835: some filters have one term, the others two)

Zero is a value of every format but binary, so what was pruned stays pruned."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from intarsia.compression.quantization.grids import Grid, round_to
from intarsia.errors import BadInput

Format = Literal["int8", "int6", "int5", "int4", "int3", "int2", "ternary", "binary", "power"]
FORMATS: tuple[str, ...] = get_args(Format)
POWERS = 7  # exponents of a term: with the sign and zero they are 15 of 16 codes
THRESHOLD = 0.7


def bits_of(format: str) -> int:
    """Bits of one code."""
    return {"ternary": 2, "binary": 1, "power": 4}.get(format) or int(format.removeprefix("int"))


def table_of(format: str) -> Tensor:
    """The values of the codes, [code] float32."""
    if format == "ternary":
        return torch.tensor([-1.0, 0.0, 1.0])
    if format == "binary":
        return torch.tensor([-1.0, 1.0])
    if format == "power":
        powers = 2.0 ** -torch.arange(POWERS, dtype=torch.float32)
        return torch.cat((torch.zeros(1), powers, -powers))
    middle = 2 ** (bits_of(format) - 1)
    return torch.arange(-middle, middle, dtype=torch.float32)


def encode(weight: Tensor, format: str, second: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes [filter, weight] uint8 and scales [filter, 1] float32 of weights [filter, weight].

    - second: bool [filter], `power`: filters that have a second term; its codes are the third result, [those, weight].

    Raises `BadInput` for weights that are not finite."""
    if not bool(torch.isfinite(weight).all()):
        raise BadInput("a filter's weight is not finite; look for NaN or infinity in the network")
    wide = weight.detach().double()
    size = wide.abs()
    if format == "ternary":
        large = size > THRESHOLD * size.mean(1, keepdim=True)
        scale = (size * large).sum(1, keepdim=True) / large.sum(1, keepdim=True).clamp(min=1)
        return (wide.sign() * large + 1).to(torch.uint8), scale.float(), None
    if format == "binary":
        return (wide >= 0).to(torch.uint8), size.mean(1, keepdim=True).float(), None
    if format == "power":
        largest = size.amax(1, keepdim=True)
        scale = torch.where(largest > 0, 2.0 ** largest.log2().round(), torch.ones_like(largest))
        codes = _nearest_power(wide / scale)
        if second is None or not bool(second.any()):
            return codes, scale.float(), None
        left = wide / scale - table_of(format).double()[codes.long()]
        return codes, scale.float(), _nearest_power(left[second])
    codes, scales, _ = round_to(weight.detach(), Grid(bits_of(format), None, True))
    return codes, scales, None


def _nearest_power(values: Tensor) -> Tensor:
    """Code of sign 2^round(log2 |v|); exponents above the window are its largest, and what is nearer to zero than to
    the smallest is zero."""
    size = values.abs()
    smallest = 2.0 ** (1 - POWERS)
    exponent = (-size.clamp(min=smallest).log2().round()).clamp(0, POWERS - 1).to(torch.int64)
    code = 1 + exponent + POWERS * (values < 0)
    return torch.where(size < smallest / 2, torch.zeros_like(code), code).to(torch.uint8)


def decode(
    codes: Tensor, scales: Tensor, format: str, more: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """The weights [filter, weight] float32; `more`: codes of second terms of the filters `rows` (their numbers)."""
    table = table_of(format).to(scales.device)
    values = table[codes.long()]
    if more is not None and rows is not None:
        values = values.index_add(0, rows.long(), table[more.long()])
    return values * scales


def rounded(weight: Tensor, format: str, second: Tensor | None = None) -> Tensor:
    """The nearest weights of the format, [filter, weight] float32."""
    codes, scales, more = encode(weight, format, second)
    return decode(codes, scales, format, more, None if more is None else second.nonzero()[:, 0])  # type: ignore[union-attr]
