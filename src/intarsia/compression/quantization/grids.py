"""Grids of whole numbers for weights: round to the nearest point, pack, unpack.

A weight matrix is [out, in]; `group` consecutive inputs of one row share a scale s (and, asymmetric, a zero point z):

    asymmetric   s = (max(w, 0) - min(w, 0)) / (2^b - 1)   z = round(-min(w, 0) / s)   w' = (q - z) s
    symmetric    s = max|w| / (2^(b-1) - 1)                z = 2^(b-1)                 w' = (q - z) s

with q = clamp(round(w / s) + z, 0, 2^b - 1) (Jacob et al. 2018, arXiv 1712.05877, section 2.1). Scales of groups are
kept in half precision and rounded *up* to it, so that the grid always reaches the largest weight and
|w - w'| <= s / 2 holds. `values` may be others than whole numbers in a row: see `values`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.compression.quantization.values import BITS, encode, table_of
from intarsia.errors import BadInput

SMALLEST_SCALE = 1e-9


@dataclass(frozen=True)
class Grid:
    """How a matrix is stored. `group` None: one scale for the whole row. values: `whole` numbers, or a format of
    `values`, whose bits it then has, and which is symmetric."""

    bits: int
    group: int | None
    symmetric: bool
    values: str = "whole"

    @classmethod
    def of(cls, values: str, group: int | None) -> Grid:
        """The grid of a format of `values`."""
        return cls(BITS[values], group, True, values)

    @property
    def middle(self) -> int:
        """The code of zero on a symmetric grid."""
        return 2 ** (self.bits - 1)

    @property
    def scale_dtype(self) -> torch.dtype:
        """One scale a row costs nothing and stays in single precision; scales of groups are halves."""
        return torch.float32 if self.group is None else torch.float16

    def groups(self, width: int) -> int:
        """How many scales a row of `width` inputs has."""
        return 1 if self.group is None else width // self.group

    def __str__(self) -> str:
        kind = self.values if self.values != "whole" else "symmetric" if self.symmetric else "asymmetric"
        return f"{self.bits}:{self.group or 'row'}:{kind}"

    @classmethod
    def parse(cls, text: str) -> Grid:
        """The inverse of `str(grid)`."""
        bits, group, kind = text.split(":")
        width = None if group == "row" else int(group)
        return cls.of(kind, width) if kind in BITS else cls(int(bits), width, kind == "symmetric")


ROW = Grid(8, None, True)
"""8 bits with one scale a row: nearly free."""


def legal_group(width: int, wanted: int) -> int:
    """The largest divisor of `width` that is not above `wanted`: a row is never padded silently."""
    return max(d for d in range(1, min(wanted, width) + 1) if width % d == 0)


def pack4(codes: Tensor) -> Tensor:
    """Two 4-bit codes a byte along the last axis, the even one in the low half: [..., n] -> [..., ceil(n / 2)] uint8.

    This is the layout ONNX Runtime's MatMulNBits reads. An odd last axis is filled with a zero code."""
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    codes = codes.to(torch.uint8)
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack4(packed: Tensor, count: int) -> Tensor:
    """The inverse of `pack4`: [..., ceil(count / 2)] -> [..., count] uint8."""
    return torch.stack((packed & 15, packed >> 4), -1).flatten(-2)[..., :count]


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes of `bits` bits along the last axis without gaps, the first in the lowest bits: [..., n] uint8 -> [..., m]
    uint8. 4 bits as `pack4`; 8 as they are; else eight codes in `bits` bytes, the last ones filled with zero codes."""
    if bits == 8:
        return codes.to(torch.uint8)
    if bits == 4:
        return pack4(codes)
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % 8)).to(torch.int64).unflatten(-1, (-1, 8))
    word = (codes << (bits * torch.arange(8, device=codes.device))).sum(-1, keepdim=True)
    return ((word >> (8 * torch.arange(bits, device=codes.device))) & 255).to(torch.uint8).flatten(-2)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of `pack`: [..., m] -> [..., count] uint8."""
    if bits == 8:
        return packed
    if bits == 4:
        return unpack4(packed, count)
    word = packed.to(torch.int64).unflatten(-1, (-1, bits))
    word = (word << (8 * torch.arange(bits, device=packed.device))).sum(-1, keepdim=True)
    codes = (word >> (bits * torch.arange(8, device=packed.device))) & (2**bits - 1)
    return codes.to(torch.uint8).flatten(-2)[..., :count]


def packed_size(count: int, bits: int) -> int:
    """Bytes of so many codes."""
    return {4: (count + 1) // 2, 8: count}.get(bits, -(-count // 8) * bits)


def _scale_up(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`scale` in `dtype`, never smaller than it was."""
    scale = scale.clamp(min=SMALLEST_SCALE)
    rounded = scale.to(dtype)
    short = rounded.to(scale.dtype) < scale
    return torch.where(short, torch.nextafter(rounded, torch.full_like(rounded, math.inf)), rounded)


def round_to(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor | None]:
    """The nearest grid point of every weight.

    weight [out, in], any float dtype. Gives codes [out, in] uint8 (0 .. 2^bits - 1), scales [out, groups] in
    `grid.scale_dtype`, zeros [out, groups] uint8 or None on a symmetric grid. `BadInput` when a weight is not finite or
    too large for a half-precision scale."""
    rows, width = weight.shape
    wide = weight.detach().to(torch.float64).view(rows, grid.groups(width), -1)
    if grid.values != "whole":
        codes, scale = encode(wide.flatten(0, 1), grid.values)
        scales = scale.view(rows, -1).to(grid.scale_dtype)
        _check_finite(scales)
        return codes.view(rows, width), scales, None
    top = 2**grid.bits - 1
    if grid.symmetric:
        scale = wide.abs().amax(-1) / (grid.middle - 1)
    else:
        low, high = wide.amin(-1).clamp(max=0), wide.amax(-1).clamp(min=0)
        scale = (high - low) / top
    scales = _scale_up(scale, grid.scale_dtype)
    _check_finite(scales)
    step = scales.to(torch.float64)
    zero = torch.full_like(step, grid.middle) if grid.symmetric else (-low / step).round()
    codes = ((wide / step[..., None]).round() + zero[..., None]).clamp(0, top)
    return codes.view(rows, width).to(torch.uint8), scales, None if grid.symmetric else zero.to(torch.uint8)


def _check_finite(scales: Tensor) -> None:
    if not torch.isfinite(scales).all():
        raise BadInput("a weight is not finite or too large to quantize; look for NaN or infinity in the network")


def rounded(weight: Tensor, grid: Grid) -> Tensor:
    """The nearest grid points themselves, [out, in] float32: as `from_grid(*round_to(...))` but for single precision in
    between, and several times as fast."""
    if grid.values != "whole":
        return from_grid(*round_to(weight, grid), grid, torch.float32)
    rows, width = weight.shape
    wide = weight.detach().float().view(rows, grid.groups(width), -1)
    top = 2**grid.bits - 1
    if grid.symmetric:
        step = _scale_up(wide.abs().amax(-1, keepdim=True) / (grid.middle - 1), grid.scale_dtype).float()
        codes = (wide / step).round_().clamp_(-grid.middle, top - grid.middle)
    else:
        low, high = wide.amin(-1, keepdim=True).clamp(max=0), wide.amax(-1, keepdim=True).clamp(min=0)
        step = _scale_up((high - low) / top, grid.scale_dtype).float()
        zero = (-low / step).round()
        codes = (wide / step).round_().add_(zero).clamp_(0, top).sub_(zero)
    return codes.mul_(step).view(rows, width)


def from_grid(codes: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid, dtype: torch.dtype) -> Tensor:
    """The rounded weights [out, in] = (codes - zeros) * scales; codes as `round_to` gives them."""
    rows, width = codes.shape
    # At least single precision inside: 15 * s needs more digits than a half has.
    inner = torch.promote_types(dtype, torch.float32)
    grouped = codes.view(rows, grid.groups(width), -1)
    if grid.values != "whole" and zeros is None:
        grouped = table_of(grid.values).to(codes.device, inner)[grouped.long()]
    else:
        grouped = grouped.to(inner) - (grid.middle if zeros is None else zeros[..., None].to(inner))
    return grouped.mul_(scales[..., None].to(inner)).view(rows, width).to(dtype)
