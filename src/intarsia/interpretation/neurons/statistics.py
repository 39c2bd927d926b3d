"""Running statistics and best texts of every neuron of a layer, in one pass: no activation outlives its batch."""

from __future__ import annotations

import torch
from torch import Tensor


class Running:
    """Mean, spread, extremes and sparsity of n neurons over tokens, float64.

    Sums are taken about the first batch's mean, as differences of large sums would lose digits."""

    def __init__(self) -> None:
        self.count = 0
        self._shift: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """values [token, neuron]."""
        x = values.double()
        if not len(x):
            return
        if self._shift is None:
            self._shift = x.mean(0)
            self._sum, self._squares, self._size = (torch.zeros_like(self._shift) for _ in range(3))
            self._positive = torch.zeros_like(self._shift)
            self.maximum, self.minimum = x.amax(0), x.amin(0)
        centred = x - self._shift
        self._sum += centred.sum(0)
        self._squares += centred.square().sum(0)
        self._size += x.abs().sum(0)
        self._positive += (x > 0).sum(0)
        self.maximum = torch.maximum(self.maximum, x.amax(0))
        self.minimum = torch.minimum(self.minimum, x.amin(0))
        self.count += len(x)

    @property
    def mean(self) -> Tensor:
        """[neuron]"""
        assert self._shift is not None
        return self._shift + self._sum / self.count

    @property
    def std(self) -> Tensor:
        """[neuron] population standard deviation."""
        return (self._squares / self.count - (self._sum / self.count).square()).clamp_min(0).sqrt()

    @property
    def positive(self) -> Tensor:
        """[neuron] share of tokens where the activation is above zero."""
        return self._positive / self.count

    @property
    def sparsity(self) -> Tensor:
        """[neuron] 1 - (mean |a|)^2 / mean a^2: 0 for a constant, near 1 when a few tokens carry everything.

        Source: Treves & Rolls 1991; Rolls & Tovee 1995."""
        power = self.std.square() + self.mean.square()
        return torch.where(power > 0, 1 - (self._size / self.count).square() / power.clamp_min(1e-300), 0.0)


class Best:
    """For each of n neurons the k texts with its highest (or lowest) activation: value, text and position of each.

    A text counts once, by its most extreme token. values, texts, positions: [k, neuron], the best first; -1 where there
    were fewer texts."""

    def __init__(self, k: int, lowest: bool = False) -> None:
        self.k, self._sign = k, -1.0 if lowest else 1.0
        self._values: Tensor | None = None

    def add(self, values: Tensor, mask: Tensor, first: int) -> None:
        """values [text, token, neuron], mask [text, token]; `first` is the number of the first text."""
        x = (self._sign * values.float()).masked_fill(~mask[..., None].to(values.device), -torch.inf)
        best, position = x.max(1)
        text = torch.arange(first, first + len(x), device=x.device)[:, None].expand_as(best)
        if self._values is not None:
            best = torch.cat([self._values, best])
            position, text = torch.cat([self._positions, position]), torch.cat([self._texts, text])
        top = best.topk(min(self.k, len(best)), dim=0)
        self._values = top.values
        self._positions, self._texts = position.gather(0, top.indices), text.gather(0, top.indices)

    @property
    def values(self) -> Tensor:
        assert self._values is not None
        return self._sign * self._values.cpu()

    @property
    def texts(self) -> Tensor:
        return torch.where(self._values.isfinite(), self._texts, -1).cpu()  # type: ignore[union-attr]

    @property
    def positions(self) -> Tensor:
        return self._positions.cpu()
