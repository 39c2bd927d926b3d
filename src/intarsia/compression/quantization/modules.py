"""Modules that hold their weight on a grid: linear layers, embeddings, and heads that share an embedding's table.

`module.weight` is the dequantized weight, made anew at each access, in the shape of the module that was replaced, so
that code reading weights keeps working. Codes are parameters without gradients, scales and zero points are buffers
that keep their precision when the network is cast. Gradients flow to the inputs."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intarsia.compression.quantization.grids import Grid, from_grid, pack, packed_size, round_to, unpack
from intarsia.compression.quantization.values import WHOLE, table_of

Kernel = Literal["auto", "reference", "packed"]
# Up to here the weights' traffic dominates and a fused kernel pays; above it, a dequantized matrix product does.
FEW_ROWS = 16


class Quantized(nn.Module):
    """A matrix [rows, width] on a grid.

    - codes: int8 [rows, width] (8 bits symmetric), else uint8 [rows, `packed_size(width, bits)`]
    - scales: [rows, groups], float32 when a row is one group, else float16
    - zeros: uint8 [rows, `packed_size(groups, bits)`]; None on a symmetric grid"""

    def __init__(self, rows: int, width: int, grid: Grid, dtype: torch.dtype, device: torch.device | None = None):
        super().__init__()
        self.rows, self.width, self.grid = rows, width, grid
        groups = grid.groups(width)
        code_dtype = torch.int8 if grid.bits == 8 and grid.symmetric else torch.uint8
        codes = torch.empty(rows, packed_size(width, grid.bits), dtype=code_dtype, device=device)
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scales", torch.empty(rows, groups, dtype=grid.scale_dtype, device=device))
        zeros = None
        if not grid.symmetric:
            zeros = torch.empty(rows, packed_size(groups, grid.bits), dtype=torch.uint8, device=device)
        self.register_buffer("zeros", zeros)
        # Holds no data: it remembers the dtype to compute in, and follows `.to()`.
        self.register_buffer("like", torch.empty(0, dtype=dtype, device=device), persistent=False)

    def fill(self, weight: Tensor) -> None:
        """Round `weight` [rows, width] to the grid."""
        self.put(*round_to(weight, self.grid))

    def put(self, codes: Tensor, scales: Tensor, zeros: Tensor | None) -> None:
        """Take codes [rows, width], scales and zeros [rows, groups] as `round_to` gives them."""
        bits = self.grid.bits
        if bits == 8 and self.grid.symmetric:
            codes = (codes.to(torch.int16) - self.grid.middle).to(torch.int8)
        else:
            codes = pack(codes, bits)
        self.codes.data = codes
        self.scales = scales
        self.zeros = None if zeros is None else pack(zeros, bits)

    def unpacked(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes uint8 [rows, width], scales [rows, groups] and zeros uint8 [rows, groups] or None, as `round_to`; of
        all rows, or of those whose numbers are given.

        Values that are no whole numbers in a row come as such, too: scales are divided, so that codes less zeros are
        whole."""
        bits, zeros, codes, scales = self.grid.bits, self.zeros, self.codes.data, self.scales
        if rows is not None:
            codes, scales, zeros = codes[rows], scales[rows], None if zeros is None else zeros[rows]
        if self.grid.values != "whole":
            times = WHOLE[self.grid.values]
            whole = (table_of(self.grid.values) * times + times).to(codes.device, torch.uint8)
            scales = scales.float() / times
            middle = torch.full_like(scales, times, dtype=torch.uint8)
            return whole[unpack(codes, bits, self.width).long()], scales, middle
        if bits == 8 and self.grid.symmetric:
            codes = (codes.to(torch.int16) + self.grid.middle).to(torch.uint8)
        else:
            codes = unpack(codes, bits, self.width)
        return codes, scales, None if zeros is None else unpack(zeros, bits, self.grid.groups(self.width))

    def dequantized(self, dtype: torch.dtype | None = None) -> Tensor:
        """The rounded matrix [rows, width]."""
        dtype = dtype or self.like.dtype
        if self.codes.dtype == torch.int8 and self.grid.group is None:
            return (self.codes.to(torch.promote_types(dtype, torch.float32)) * self.scales).to(dtype)
        return from_grid(*self.unpacked(), self.grid, dtype)

    @property
    def weight(self) -> Tensor:
        """The dequantized weight, in the layout of the module that was replaced."""
        return self.dequantized()

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        scales = self.scales
        super()._apply(fn, recurse)
        if self.scales.dtype != scales.dtype:
            # A cast of the network must not move the grid.
            self.scales = scales.to(self.scales.device)
        return self


def has_codes(network: nn.Module) -> bool:
    """Whether some module of a network holds its weight on a grid."""
    return any(isinstance(module, Quantized) for module in network.modules())


class QuantLinear(Quantized):
    """`nn.Linear` with its weight [out_features, in_features] on a grid.

    One scale a row: y = (x codes^T) * scales, in the dtype of x, whatever the number of rows. Otherwise `kernel` says
    how up to 16 rows (tokens) are multiplied on a CPU: `packed` by torch's 4-bit kernel, which rounds x, the result
    and the scales to bfloat16; `reference` by dequantizing; `auto` is `packed` where torch has it for the shape.
    More rows, gradients and other devices always dequantize. The choice never depends on a clock."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: Grid,
        bias: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        kernel: Kernel = "auto",
    ):
        super().__init__(out_features, in_features, grid, dtype, device)
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias  # type: ignore[assignment]
        self.kernel: Kernel = kernel
        self._laid_out: tuple[Tensor, Tensor] | None = None

    @property
    def has_packed_kernel(self) -> bool:
        """Whether torch's 4-bit CPU kernel takes this shape and grid."""
        whole = self.grid.values == "whole" and self.grid.bits == 4
        return whole and self.grid.group in (32, 64, 128, 256) and self.out_features % 16 == 0

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if self.codes.dtype == torch.int8 and self.grid.group is None and x.dtype != torch.float16:
            y = F.linear(x, self.codes.to(x.dtype)) * self.scales[:, 0].to(x.dtype)
            return y if self.bias is None else y + self.bias
        if self._packs(x):
            return self._packed(x)
        return F.linear(x, self.dequantized(x.dtype), self.bias)

    def _packs(self, x: Tensor) -> bool:
        return (
            self.kernel != "reference"
            and self.has_packed_kernel
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.numel() <= FEW_ROWS * self.in_features
            and not (torch.is_grad_enabled() and x.requires_grad)
        )

    def _packed(self, x: Tensor) -> Tensor:
        if self._laid_out is None:
            codes, scales, zeros = self.unpacked()
            scales = scales.float()
            shift = self.grid.middle - (self.grid.middle if zeros is None else zeros.float())
            # The kernel computes (q - 8) s + t, with s and t as [groups, out, 2].
            pair = torch.stack((scales, shift * scales), -1).transpose(0, 1).contiguous().to(torch.bfloat16)
            self._laid_out = (torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1), pair)
        packed, pair = self._laid_out
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, self.grid.group, pair)
        y = y.to(x.dtype).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def put(self, codes: Tensor, scales: Tensor, zeros: Tensor | None) -> None:
        super().put(codes, scales, zeros)
        self._laid_out = None

    def __getstate__(self) -> dict:
        # A copy makes the kernel's own layout again when it needs it.
        return {**self.__dict__, "_laid_out": None}

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, grid={self.grid}"


class QuantConv1D(QuantLinear):
    """GPT-2's `Conv1D`, a linear layer whose weight is [in, out], on a grid; so is its `weight`."""

    @property
    def nf(self) -> int:
        """Number of outputs, as `Conv1D` calls it."""
        return self.out_features

    @property
    def weight(self) -> Tensor:
        """The dequantized weight [in, out]."""
        return self.dequantized().T


class QuantEmbedding(Quantized):
    """`nn.Embedding` with its table [num_embeddings, embedding_dim] on a grid; only the rows asked for are dequantized.

    scale: what the embedding's output is multiplied by (Gemma, BART); 1 for a plain table."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        grid: Grid,
        padding_idx: int | None = None,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ):
        super().__init__(num_embeddings, embedding_dim, grid, dtype, device)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.scale = scale

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] -> [..., embedding_dim]."""
        return _scaled(self.look_up(ids), self.scale)

    def look_up(self, ids: Tensor) -> Tensor:
        """The rows of the table, not scaled."""
        dtype = self.like.dtype
        if self.codes.dtype == torch.int8 and self.grid.group is None:
            rows = F.embedding(ids, self.codes).to(torch.promote_types(dtype, torch.float32))
            return (rows * F.embedding(ids, self.scales)).to(dtype)
        codes, scales, zeros = self.unpacked(ids.flatten())
        return from_grid(codes, scales, zeros, self.grid, dtype).view(*ids.shape, self.width)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, grid={self.grid}"


def _scaled(rows: Tensor, scale: float) -> Tensor:
    # Rounded to the rows' dtype first, as the originals keep it.
    return rows if scale == 1.0 else rows * torch.tensor(scale, dtype=rows.dtype).item()


class _Tied(nn.Module):
    """Uses another module's table and holds none of its own, so that it exists once in memory and on disk."""

    def __init__(self, table: QuantEmbedding):
        super().__init__()
        # In a tuple: torch must not register it a second time.
        self._table = (table,)

    @property
    def weight(self) -> Tensor:
        """The dequantized shared table [vocabulary, width]."""
        return self._table[0].weight

    def extra_repr(self) -> str:
        return f"tied to {self._table[0]}"


class TiedHead(_Tied):
    """A linear layer over the input embedding's own table: [..., width] -> [..., vocabulary]."""

    def __init__(self, table: QuantEmbedding, bias: nn.Parameter | None = None):
        super().__init__(table)
        self.bias = bias
        self.in_features, self.out_features = table.embedding_dim, table.num_embeddings

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., vocabulary]."""
        table = self._table[0]
        if x.dtype == torch.float16 or table.codes.dtype != torch.int8 or table.grid.group is not None:
            return F.linear(x, table.dequantized(x.dtype), self.bias)
        y = F.linear(x, table.codes.to(x.dtype)) * table.scales[:, 0].to(x.dtype)
        return y if self.bias is None else y + self.bias


class TiedEmbedding(_Tied):
    """A second embedding over the same table (the decoder's, in an encoder-decoder)."""

    def __init__(self, table: QuantEmbedding, scale: float = 1.0):
        super().__init__(table)
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        self.padding_idx, self.scale = table.padding_idx, scale

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] -> [..., width]."""
        return _scaled(self._table[0].look_up(ids), self.scale)


def holder(module: nn.Module) -> nn.Module:
    """The module that holds a module's matrix: another one for what is tied."""
    return module._table[0] if isinstance(module, _Tied) else module
