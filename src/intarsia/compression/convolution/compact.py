"""Compact layers that take the place of a layer of filters, with the numbers they begin with.

| kind | layers | begins as |
|---|---|---|
| tucker | 1x1, kxk, 1x1 | HOSVD |
| polyadic | 1x1, kx1 and 1xk by channel, 1x1 | alternating least squares (CP) |
| spatial | kx1, 1xk | SVD |
| separable | kxk by channel, 1x1 (arXiv 1704.04861) | best rank 1 a channel |
| grouped | grouped 1x1, shuffle, grouped kxk (arXiv 1707.01083) | what of the old is in it |
| bottleneck | 1x1, norm, ReLU, kxk, norm, ReLU, 1x1 (arXiv 1512.03385) | HOSVD |
| fire | squeeze 1x1, ReLU, expand 1x1 beside kxk (arXiv 1602.07360) | HOSVD's inputs |

`tucker`, `polyadic` and `spatial` approximate the old layer; the others only come near it by learning to."""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from intarsia.compression.convolution.decomposing import polyadic, single, spatial, tucker
from intarsia.compression.convolution.networks import as_pair

Kind = Literal["tucker", "polyadic", "spatial", "separable", "grouped", "bottleneck", "fire"]
KINDS: tuple[str, ...] = get_args(Kind)
FIXED = {"separable"}  # have no width to choose


class Shuffle(nn.Module):
    """Channels of each of `groups` groups dealt out to all of them: [n, g c, h, w] as [n, g, c] -> [n, c, g]."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[picture, channel, height, width] -> the same shape."""
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and by kxk filters side by side. All three are `nn.Conv2d`."""

    def __init__(self, squeeze: nn.Conv2d, narrow: nn.Conv2d, broad: nn.Conv2d):
        super().__init__()
        self.squeeze, self.narrow, self.broad = squeeze, narrow, broad

    def forward(self, x: Tensor) -> Tensor:
        """[picture, in, height, width] -> [picture, out, height', width']."""
        x = self.squeeze(x).relu()
        return torch.cat((self.narrow(x), self.broad(x)), 1)


def fits(conv: nn.Conv2d, kind: str) -> bool:
    """Whether a kind can take this layer's place: ordinary filters, larger than 1x1, in one group."""
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    if kind == "grouped" and (conv.in_channels % 2 or conv.out_channels % 2):
        return False
    return plain and max(as_pair(conv.kernel_size)) > 1 and min(conv.in_channels, conv.out_channels) > 1


def compact(conv: nn.Conv2d, kind: str, share: float, seed: int = 0) -> nn.Module:
    """The layer that takes the place of `conv`.

    - share: of the width that the kind can have at most (ranks, inner channels), above 0 to 1; `grouped`: one over the
      number of groups, of the divisors that there are. 1 for tucker and spatial is exact."""
    made = _MAKERS[kind](copy.deepcopy(conv).cpu(), share, seed)
    return made.to(conv.weight.device, conv.weight.dtype).train(conv.training)


def _tucker(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    out, inner = _rank(conv.out_channels, share), _rank(conv.in_channels, share)
    u, core, v = tucker(conv.weight, out, inner)
    first = _conv(inner, conv.in_channels, weight=v.T[:, :, None, None])
    middle = _like(conv, out, inner, weight=core)
    last = _conv(conv.out_channels, out, weight=u[:, :, None, None], bias=conv.bias)
    return nn.Sequential(first, middle, last)


def _polyadic(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    rank = _rank(conv.in_channels + conv.out_channels, share)
    a, b, c, d = polyadic(conv.weight, rank, seed=seed)
    (sh, sw), (ph, pw), (dh, dw) = as_pair(conv.stride), as_pair(conv.padding), as_pair(conv.dilation)
    return nn.Sequential(
        _conv(rank, conv.in_channels, weight=b.T[:, :, None, None]),
        _conv(rank, rank, stride=(sh, 1), padding=(ph, 0), dilation=(dh, 1), groups=rank, weight=c.T[:, None, :, None]),
        _conv(rank, rank, stride=(1, sw), padding=(0, pw), dilation=(1, dw), groups=rank, weight=d.T[:, None, None, :]),
        _conv(conv.out_channels, rank, weight=a[:, :, None, None], bias=conv.bias),
    )


def _spatial(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    high, wide = as_pair(conv.kernel_size)
    rank = _rank(min(conv.in_channels * high, conv.out_channels * wide), share)
    one, two = spatial(conv.weight, rank)
    (sh, sw), (ph, pw), (dh, dw) = as_pair(conv.stride), as_pair(conv.padding), as_pair(conv.dilation)
    return nn.Sequential(
        _conv(rank, conv.in_channels, stride=(sh, 1), padding=(ph, 0), dilation=(dh, 1), weight=one[..., None]),
        _conv(
            conv.out_channels, rank, stride=(1, sw), padding=(0, pw), dilation=(1, dw), weight=two[:, :, None, :],
            bias=conv.bias,
        ),
    )  # fmt: skip


def _separable(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    planes, mixing = single(conv.weight)
    deep = _like(conv, conv.in_channels, conv.in_channels, weight=planes[:, None], groups=conv.in_channels)
    return nn.Sequential(
        deep, _conv(conv.out_channels, conv.in_channels, weight=mixing[:, :, None, None], bias=conv.bias)
    )


def groups_of(conv: nn.Conv2d, share: float) -> int:
    """How many groups a grouped layer has: of the common divisors of its channels, the one nearest to 1 / share."""
    common = [
        g for g in range(2, min(conv.in_channels, conv.out_channels) + 1)
        if not conv.in_channels % g and not conv.out_channels % g
    ]  # fmt: skip
    return min(common, key=lambda g: abs(g - 1 / share))


def _grouped(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    groups, inner, out = groups_of(conv, share), conv.in_channels, conv.out_channels
    each = inner // groups
    # The 1x1 layer begins as the identity, so place j after the shuffle reads channel (j mod groups) each + j / groups.
    reads = torch.arange(inner).view(groups, each).T.flatten()
    weight = conv.weight.detach()
    kept = [
        weight[g * out // groups : (g + 1) * out // groups][:, reads[g * each : (g + 1) * each]] for g in range(groups)
    ]
    eye = torch.eye(each).repeat(groups, 1)[:, :, None, None]
    return nn.Sequential(
        _conv(inner, inner, groups=groups, weight=eye),
        Shuffle(groups),
        _like(conv, out, inner, weight=torch.cat(kept), groups=groups, bias=conv.bias),
    )


def _bottleneck(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    width = _rank(min(conv.in_channels, conv.out_channels), share)
    u, core, v = tucker(conv.weight, width, width)
    return nn.Sequential(
        _conv(width, conv.in_channels, weight=v.T[:, :, None, None]),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        _like(conv, width, width, weight=core),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        _conv(conv.out_channels, width, weight=u[:, :, None, None], bias=conv.bias),
    )


def _fire(conv: nn.Conv2d, share: float, seed: int) -> nn.Module:
    width = _rank(conv.in_channels, share)
    _, _, v = tucker(conv.weight, 1, width)
    v = v[:, :width]
    out = conv.out_channels // 2
    seen = torch.einsum("oihw,ir->orhw", conv.weight.detach().double(), v)
    high, wide = (k // 2 for k in as_pair(conv.kernel_size))
    (sh, sw), (ph, pw) = as_pair(conv.stride), as_pair(conv.padding)
    # A 1x1 filter reads the middle of what the kxk one reads: as much less padding, which must not be less than none.
    dh, dw = as_pair(conv.dilation)
    ph, pw = ph - high * dh, pw - wide * dw
    narrow = _conv(out, width, stride=(sh, sw), weight=seen[:out, :, high, wide, None, None], bias=_part(conv, 0, out))
    narrow.padding = (max(ph, 0), max(pw, 0))
    broad = _like(conv, conv.out_channels - out, width, weight=seen[out:], bias=_part(conv, out, conv.out_channels))
    return Fire(_conv(width, conv.in_channels, weight=v.T[:, :, None, None]), narrow, broad)


_MAKERS = {
    "tucker": _tucker, "polyadic": _polyadic, "spatial": _spatial, "separable": _separable, "grouped": _grouped,
    "bottleneck": _bottleneck, "fire": _fire,
}  # fmt: skip


def _rank(most: int, share: float) -> int:
    return max(1, min(most, round(share * most)))


def _part(conv: nn.Conv2d, low: int, high: int) -> Tensor | None:
    return None if conv.bias is None else conv.bias[low:high]


def _like(
    conv: nn.Conv2d, out: int, inner: int, *, weight: Tensor, groups: int = 1, bias: Tensor | None = None
) -> nn.Conv2d:
    """Filters that look at the same places."""
    return _conv(
        out, inner, stride=as_pair(conv.stride), padding=as_pair(conv.padding), dilation=as_pair(conv.dilation),
        groups=groups, weight=weight, bias=bias,
    )  # fmt: skip


def _conv(
    out: int, inner: int, *, weight: Tensor, stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1), groups: int = 1, bias: Tensor | None = None,
) -> nn.Conv2d:  # fmt: skip
    with torch.device("meta"):
        made = nn.Conv2d(inner, out, tuple(weight.shape[2:]), stride, padding, dilation, groups, bias is not None)
    assert made.weight.shape == weight.shape, (made.weight.shape, weight.shape)
    made.weight = nn.Parameter(weight.detach().float().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().float().clone())
    return made
