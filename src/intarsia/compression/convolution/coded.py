"""Layers of filters whose weights are codes: they run, travel with the network and save; and the same layer while it
learns to live with few bits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intarsia.compression.convolution.formats import bits_of, decode, encode, rounded
from intarsia.compression.convolution.networks import as_pair
from intarsia.compression.quantization.grids import Grid, pack, packed_size, unpack
from intarsia.compression.quantization.modules import Quantized


class CodedConv2d(Quantized):
    """`nn.Conv2d` with its weight [out, in / groups, height, width] in one of the number formats of `formats`.

    - codes: uint8 [out, `packed_size(width, bits)`]; int8 [out, width] where 8 bits. scales: float32 [out, 1].
    - more, second: `power` only; codes of second terms [filters, packed] and these filters' numbers [filters] int32.

    The weight is dequantized at every call: in PyTorch the gain is the size. For speed, export."""

    def __init__(self, conv: nn.Conv2d, format: str, twice: int = 0):
        rows, width = len(conv.weight), conv.weight[0].numel()
        super().__init__(rows, width, Grid(bits_of(format), None, True), conv.weight.dtype, conv.weight.device)
        self.format, self.shape = format, tuple(conv.weight.shape)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride = as_pair(conv.kernel_size), as_pair(conv.stride)
        self.padding: Any = conv.padding
        self.dilation, self.groups, self.padding_mode = as_pair(conv.dilation), conv.groups, conv.padding_mode
        self.bias = conv.bias
        more = second = None
        if twice:
            packed = packed_size(width, self.grid.bits)
            more = torch.empty(twice, packed, dtype=torch.uint8, device=conv.weight.device)
            second = torch.empty(twice, dtype=torch.int32, device=conv.weight.device)
        self.register_buffer("more", more)
        self.register_buffer("second", second)

    def fill(self, weight: Tensor, second: Tensor | None = None) -> None:
        """Round `weight` [out, in / groups, height, width]; `second`: bool [out], filters that get a second term."""
        codes, scales, more = encode(weight.flatten(1), self.format, second)
        self.put(codes, scales, None)
        if more is not None:
            self.more = pack(more, self.grid.bits)
            self.second = second.nonzero()[:, 0].to(torch.int32)  # type: ignore[union-attr]

    def dequantized(self, dtype: torch.dtype | None = None) -> Tensor:
        """The rounded weight [out, in / groups, height, width]."""
        codes, scales, _ = self.unpacked()
        more = None if self.more is None else unpack(self.more, self.grid.bits, self.width)
        weight = decode(codes, scales, self.format, more, self.second)
        return weight.view(self.shape).to(dtype or self.like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[picture, in, height, width] -> [picture, out, height', width']."""
        return convolve(self, x, self.dequantized(x.dtype))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, format={self.format}"


class LearningConv2d(nn.Conv2d):
    """A layer of filters that is used rounded and learns unrounded: the gradient passes the rounding as if it were not
    there (the straight-through estimator; Bengio et al. 2013, arXiv 1308.3432)."""

    def __init__(self, conv: nn.Conv2d, format: str, second: Tensor | None = None):
        with torch.device("meta"):
            super().__init__(
                conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
                conv.groups, conv.bias is not None, conv.padding_mode,
            )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self.format, self.second = format, second

    def forward(self, x: Tensor) -> Tensor:
        """[picture, in, height, width] -> [picture, out, height', width']."""
        near = rounded(self.weight.flatten(1), self.format, self.second).view_as(self.weight).to(self.weight)
        return convolve(self, x, self.weight + (near - self.weight).detach())


def convolve(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What `nn.Conv2d` does, with another weight."""
    padding = layer.padding
    if layer.padding_mode != "zeros":
        high, wide = as_pair(padding)
        x, padding = F.pad(x, (wide, wide, high, high), mode=layer.padding_mode), 0
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def plain_of(coded: CodedConv2d) -> nn.Conv2d:
    """An ordinary layer that holds the rounded weights."""
    with torch.device("meta"):
        conv = nn.Conv2d(
            coded.in_channels, coded.out_channels, coded.kernel_size, coded.stride, coded.padding, coded.dilation,
            coded.groups, coded.bias is not None, coded.padding_mode,
        )  # fmt: skip
    conv.weight, conv.bias = nn.Parameter(coded.dequantized()), coded.bias
    return conv.train(coded.training)
