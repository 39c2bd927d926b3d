"""Matrices as GGUF stores them: blocks of 32 weights of one row with a scale d, and a minimum m in some types.

    Q4_0, Q5_0, Q8_0   w = d v        v a signed number of 4, 5, 8 bits; of 4 and 5 bits it is stored as v + 8, v + 16
    Q4_1, Q5_1         w = d q + m    q an unsigned number of 4, 5 bits

d and m are half-precision floats. A byte of 4-bit codes holds weight i (low half) and weight i + 16 (high half); the
fifth bits of a block lie together in four bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.compression.quantization.modules import Quantized, holder
from intarsia.errors import BadInput

BLOCK = 32


@dataclass(frozen=True)
class BlockType:
    """bits of a code; minimum: whether a block has one, so that its codes are unsigned."""

    bits: int
    minimum: bool

    @property
    def low(self) -> int:
        """The smallest number a code stands for."""
        return 0 if self.minimum else -(2 ** (self.bits - 1))


# From the smallest to the largest: the first that holds a grid is taken.
BLOCKS = {
    "Q4_0": BlockType(4, False),
    "Q4_1": BlockType(4, True),
    "Q5_0": BlockType(5, False),
    "Q5_1": BlockType(5, True),
    "Q8_0": BlockType(8, False),
}
TYPES = (*BLOCKS, "F16", "BF16", "F32")
WHOLE = 128  # weights: types with a minimum are read rightly in rows of a multiple of this
FLOAT_ROWS = {"F16": 4, "BF16": 8}  # the same of floats; single precision always is


@dataclass(frozen=True)
class Stored:
    """A matrix [rows, width] in a type of the format.

    - data: bytes uint8 [rows, bytes], or floats [rows, width]. own: whether these are the model's own codes.
    - deviation: the largest |w' - w| between what is stored and the model's weight, in units of the weight."""

    type: str
    data: np.ndarray
    own: bool
    deviation: float


def own_type(module: nn.Module) -> str | None:
    """The smallest type that holds the codes of a quantized module; None where there is none, or nothing quantized."""
    table = holder(module)
    if not isinstance(table, Quantized):
        return None
    return next((name for name in readable(table.width) if _own_codes(table, BLOCKS[name]) is not None), None)


def readable(width: int) -> list[str]:
    """The block types that a matrix with rows of `width` weights may have, from the smallest.

    Not those with a minimum where 128 does not divide the row: ik_llama.cpp 0.1.5 then gives other numbers as soon as
    32 tokens or more are read at once. The next type with as many signed numbers holds the same codes."""
    return [name for name, kind in BLOCKS.items() if not (kind.minimum and width % WHOLE)]


def wants(name: str, width: int) -> int | None:
    """What should divide rows of `width` weights so that ik_llama.cpp 0.1.5 reads them rightly in the type `name`, and
    does not; None where it reads them rightly."""
    whole = FLOAT_ROWS.get(name, WHOLE if name in BLOCKS and name not in readable(width) else 1)
    return whole if width % whole else None


def loose_type(width: int) -> str:
    """Of a matrix whose rows no block type divides: half precision where it is read rightly."""
    return "F32" if wants("F16", width) else "F16"


def nearest_type(bits: int, width: int) -> str:
    """The smallest type of `bits` bits or more for weights that are rounded anew; with a minimum where it may."""
    wanted = "Q4_1" if bits <= 4 else "Q5_1" if bits == 5 else "Q8_0"
    if wanted in readable(width):
        return wanted
    return "Q5_0" if bits <= 4 else "Q8_0"


def store(module: nn.Module, weight: Tensor, name: str) -> Stored:
    """`weight` [rows, width] of `module` in the type `name`: its own codes where they fit, else rounded to nearest.

    Raises `BadInput` when a weight is not finite, or too large for half precision."""
    import gguf

    kind = gguf.GGMLQuantizationType[name]
    table = holder(module)
    codes = _own_codes(table, BLOCKS[name]) if name in BLOCKS and isinstance(table, Quantized) else None
    floats = weight.detach().float().cpu().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        data = gguf.quantize(floats, kind) if codes is None else _packed(BLOCKS[name], *codes)
        deviation = float(np.abs(gguf.dequantize(data, kind).astype(np.float64) - floats).max())
    if not np.isfinite(deviation):
        raise BadInput(f"a weight is not finite or too large for {name}; look for NaN or infinity, or take F32")
    return Stored(name, data, codes is not None, deviation)


def _own_codes(table: Quantized, kind: BlockType) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Codes [rows, blocks, 32] as they are stored, d and m [rows, blocks]; None when the grid is no part of the type.

    m = -z d is rounded to half precision: it has up to four bits more than d."""
    group = table.grid.group
    if table.width % BLOCK or (group is not None and group % BLOCK):
        return None
    codes, scales, zeros = table.unpacked()
    repeat = table.width // BLOCK // scales.shape[1]
    codes = codes.to(torch.int16).view(table.rows, -1, BLOCK)
    scales = scales.float().repeat_interleave(repeat, 1)
    if zeros is None:
        zeros = torch.full_like(scales, table.grid.middle, dtype=torch.int16)
    else:
        zeros = zeros.to(torch.int16).repeat_interleave(repeat, 1)
    numbers = codes if kind.minimum else codes - zeros[..., None]
    if numbers.amin() < kind.low or numbers.amax() >= kind.low + 2**kind.bits:
        return None
    if kind.bits < 8:
        numbers = numbers - kind.low
    least = -zeros * scales if kind.minimum else None
    return numbers.cpu().numpy(), scales.cpu().numpy(), None if least is None else least.cpu().numpy()


def _packed(kind: BlockType, codes: np.ndarray, scales: np.ndarray, least: np.ndarray | None) -> np.ndarray:
    """The bytes [rows, bytes] of a matrix."""
    parts = [_halves(scales)] if least is None else [_halves(scales), _halves(least)]
    if kind.bits == 8:
        parts.append(codes.astype(np.int8).view(np.uint8))
    else:
        codes = codes.astype(np.uint8)
        if kind.bits == 5:
            parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
        half = BLOCK // 2
        parts.append((codes[..., :half] & 15) | ((codes[..., half:] & 15) << 4))
    return np.concatenate(parts, axis=-1).reshape(len(codes), -1)


def _halves(values: np.ndarray) -> np.ndarray:
    """[rows, blocks] -> the two bytes of each as a half-precision float, [rows, blocks, 2]."""
    return np.ascontiguousarray(values.astype("<f2"))[..., None].view(np.uint8)
