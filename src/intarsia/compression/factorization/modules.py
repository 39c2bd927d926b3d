"""The linear layer that holds two factors in place of its matrix: y = A (C x) + b, or beside a rounded matrix.

`module.weight` is the whole matrix, made anew at each access in the layout of the module that was replaced, so that
code reading weights keeps working; `dense()` is an ordinary layer again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from intarsia.sites import exchange


class FactoredLinear(nn.Module):
    """`nn.Linear` with its weight as `second.weight @ first.weight` (+ `base.weight`).

    - first: [rank, in_features], C. second: [out_features, rank], A. base: what the factors are added to, if anything.
      Each is a linear layer of its own, plain or quantized. The bias is the base's, where there is one, else
      `second`'s."""

    _transposed = False

    def __init__(self, first: nn.Module, second: nn.Module, base: nn.Module | None = None):
        super().__init__()
        self.first, self.second, self.base = first, second, base

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.first.in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.second.out_features  # type: ignore[return-value]

    @property
    def rank(self) -> int:
        """Number of columns of A."""
        return self.first.out_features  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """[out_features]."""
        return (self.second if self.base is None else self.base).bias  # type: ignore[return-value]

    def matrix(self, dtype: torch.dtype | None = None) -> Tensor:
        """The whole matrix [out_features, in_features], multiplied out in single precision or better."""
        first, second = self.first.weight, self.second.weight
        exact = torch.promote_types(first.dtype, torch.float32)
        whole = second.to(exact) @ first.to(exact)
        if self.base is not None:
            base = self.base.weight.to(exact)
            whole = whole + (base.T if self._transposed else base)
        return whole.to(dtype or first.dtype)

    @property
    def weight(self) -> Tensor:
        """The whole matrix, in the layout of the module that was replaced."""
        return self.matrix()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        y = self.second(self.first(x))
        return y if self.base is None else y + self.base(x)

    def dense(self, dtype: torch.dtype | None = None) -> nn.Module:
        """An ordinary layer with the whole matrix, of the class that was replaced; biases are shared."""
        with torch.device("meta"):
            new: Any = self._empty()
        whole = self.matrix(dtype).detach()
        new.weight = nn.Parameter((whole.T if self._transposed else whole).contiguous())
        bias = self.bias
        new.bias = None if bias is None else nn.Parameter(bias.detach().to(whole.dtype))
        return new.train(self.training)

    def _empty(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


class FactoredConv1D(FactoredLinear):
    """GPT-2's `Conv1D`, a linear layer whose weight is [in, out], as two factors; so is its `weight`."""

    _transposed = True

    @property
    def nf(self) -> int:
        """Number of outputs, as `Conv1D` calls it."""
        return self.out_features

    @property
    def weight(self) -> Tensor:
        """The whole matrix [in, out]."""
        return self.matrix().T

    def _empty(self) -> nn.Module:
        return Conv1D(self.out_features, self.in_features)


def has_factors(network: nn.Module) -> bool:
    """Whether some layer of a network is factored."""
    return any(isinstance(module, FactoredLinear) for module in network.modules())


def lay_factors(network: nn.Module, ranks: Mapping[str, int], based: Collection[str] = ()) -> None:
    """Put factored layers without numbers in the place of linear ones; those that are factored already stay.

    - ranks: by the layer's name. based: names of the layers that stay as the base of their factors."""
    for name, rank in ranks.items():
        old: Any = network.get_submodule(name)
        if isinstance(old, FactoredLinear):
            continue
        conv = isinstance(old, Conv1D)
        out, width = old.weight.T.shape if conv else old.weight.shape
        like = dict(dtype=old.weight.dtype, device=old.weight.device)
        first = nn.utils.skip_init(nn.Linear, width, rank, bias=False, **like)
        second = nn.utils.skip_init(nn.Linear, rank, out, bias=False, **like)
        base = old if name in based else None
        if base is None:
            second.bias = old.bias
        new = (FactoredConv1D if conv else FactoredLinear)(first, second, base)
        exchange(network, name, new.train(old.training))


@torch.no_grad()
def fill_factors(module: FactoredLinear, left: Tensor, right: Tensor) -> None:
    """Take A [out, rank] and C [rank, in]."""
    module.second.weight.copy_(left)  # type: ignore[operator]
    module.first.weight.copy_(right)  # type: ignore[operator]
