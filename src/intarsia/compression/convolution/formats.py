"""Number formats for filters. A filter is a row of weights [in * height * width] with one scale s:

    w' = s (t[c_1] + ... + t[c_k])        c: codes of a few bits, t: the format's table of values

    int8 ... int2            t = -2^(b-1) ... 2^(b-1) - 1, s = max|w| / (2^(b-1) - 1)
    ternary, binary, power   see `intarsia.compression.quantization.values`; `power` may have k terms, each the nearest
                             power of two of what the ones before left (LightNN; Ding et al. 2018, FLightNN, arXiv
                             1904.02835: some filters have one term, the others two)

Zero is a value of every format but binary, so what was pruned stays pruned."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from intarsia.compression.quantization import values
from intarsia.compression.quantization.grids import Grid, round_to
from intarsia.errors import BadInput

Format = Literal["int8", "int6", "int5", "int4", "int3", "int2", "ternary", "binary", "power"]
FORMATS: tuple[str, ...] = get_args(Format)


def bits_of(format: str) -> int:
    """Bits of one code."""
    return values.BITS.get(format) or int(format.removeprefix("int"))


def table_of(format: str) -> Tensor:
    """The values of the codes, [code] float32."""
    if format in values.BITS:
        return values.table_of(format)
    middle = 2 ** (bits_of(format) - 1)
    return torch.arange(-middle, middle, dtype=torch.float32)


def encode(weight: Tensor, format: str, second: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes [filter, weight] uint8 and scales [filter, 1] float32 of weights [filter, weight].

    - second: bool [filter], `power`: filters that have a second term; its codes are the third result, [those, weight].

    Raises `BadInput` for weights that are not finite."""
    if not bool(torch.isfinite(weight).all()):
        raise BadInput("a filter's weight is not finite; look for NaN or infinity in the network")
    if format not in values.BITS:
        codes, scales, _ = round_to(weight.detach(), Grid(bits_of(format), None, True))
        return codes, scales, None
    codes, scales = values.encode(weight, format)
    if format != "power" or second is None or not bool(second.any()):
        return codes, scales.float(), None
    left = weight.detach().double() / scales - table_of(format).double().to(scales.device)[codes.long()]
    return codes, scales.float(), values.nearest_power(left[second])


def decode(
    codes: Tensor, scales: Tensor, format: str, more: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """The weights [filter, weight] float32; `more`: codes of second terms of the filters `rows` (their numbers)."""
    table = table_of(format).to(scales.device)
    found = table[codes.long()]
    if more is not None and rows is not None:
        found = found.index_add(0, rows.long(), table[more.long()])
    return found * scales


def rounded(weight: Tensor, format: str, second: Tensor | None = None) -> Tensor:
    """The nearest weights of the format, [filter, weight] float32."""
    codes, scales, more = encode(weight, format, second)
    return decode(codes, scales, format, more, None if more is None else second.nonzero()[:, 0])  # type: ignore[union-attr]
