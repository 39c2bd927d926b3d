"""Scales that cost nothing: an input of linear layers is made smaller where it is made, and their weights larger.

    norm -> q, k, v          the norm's gain (and bias) is divided, the columns of W multiplied
    norm -> gate, up
    v -> o                   v's rows are divided; heads that share keys and values share scales
    up -> down               in gated MLPs, where down reads act(gate) * up

Which layers read which norm is seen on a small input, and every fold is tried with scales drawn at random before it is
used: where the network's output changes, it is none.

Source: Lin et al. 2024, AWQ, arXiv 2306.00978, section 3.2; Xiao et al. 2023, SmoothQuant, arXiv 2211.10438, section
4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.compression.linears import Linear
from intarsia.compression.statistics import uncached
from intarsia.sites import batch_of, watching

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS = 8  # of the input on which folds are found and tried
TOLERANCE = 1e-3  # of the output's size


@dataclass(frozen=True)
class Fold:
    """One place where inputs are made and read.

    - consumers: the linear layers that read them. norm, or rows: what makes them: a norm's gain, or a linear layer's
      rows. index: [in] which of the producer's numbers each input is. offset: the gain is 1 + the norm's weight."""

    consumers: tuple[Linear, ...]
    norm: nn.Module | None
    rows: Linear | None
    index: Tensor
    offset: bool = False

    @property
    def size(self) -> int:
        """How many scales there are."""
        return int(self.index.max()) + 1

    @torch.no_grad()
    def apply(self, scale: Tensor) -> None:
        """Divide the inputs by `scale` [size], and multiply the consumers' columns by it."""
        for tensor, shift in self._made():
            by = scale.to(tensor).view(-1, *[1] * (tensor.dim() - 1))
            tensor.copy_((tensor + shift) / by - shift)
        for layer in self.consumers:
            layer.set(layer.weight * scale.to(layer.weight)[self.index.to(layer.weight.device)])

    def _made(self) -> Iterator[tuple[Tensor, float]]:
        """The producer's tensors, and what is to be added to them."""
        if self.rows is not None:
            yield self.rows.weight, 0.0
        else:
            yield self.norm.weight, 1.0 if self.offset else 0.0  # type: ignore[union-attr,misc]
        if (bias := getattr(self.norm if self.rows is None else self.rows.module, "bias", None)) is not None:
            yield bias, 0.0

    @contextmanager
    def tried(self, scale: Tensor) -> Iterator[None]:
        """Inside, the scale is applied; afterwards every weight is what it was, bit for bit."""
        touched = [tensor for tensor, _ in self._made()] + [layer.weight for layer in self.consumers]
        before = [tensor.clone() for tensor in touched]
        try:
            self.apply(scale)
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(touched, before, strict=True):
                    tensor.copy_(old)


@torch.no_grad()
def folds(model: Model, layers: Sequence[Linear]) -> list[Fold]:
    """The folds among layers, each tried. Layers whose inputs have none are in no fold."""
    ids = torch.arange(TOKENS)[None] * 7 % model.config.get_text_config().vocab_size
    kwargs = {**batch_of(model, ids).kwargs, **uncached(model)}
    found = [*norm_folds(model, layers, kwargs), *_of_rows(model, layers)]
    wanted = _output(model, kwargs)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for fold in found:
        scale = torch.rand(fold.size, generator=generator) * 1.5 + 0.5
        with fold.tried(scale):
            gap = (_output(model, kwargs) - wanted).abs().max()
        if gap <= TOLERANCE * wanted.abs().max():
            kept.append(fold)
    return kept


def _output(model: Model, kwargs: dict[str, Any]) -> Tensor:
    out = model.network(**kwargs)
    return out.logits if "logits" in out else out.last_hidden_state


def norm_folds(model: Model, layers: Sequence[Linear], kwargs: dict[str, Any]) -> list[Fold]:
    """Norms of one width with the layers that read them, as one run on `kwargs` shows; none is tried."""
    named = {layer.name: layer for layer in layers}
    norms = {
        name: module for name, module in model.network.named_modules()
        if "norm" in type(module).__name__.lower() and isinstance(getattr(module, "weight", None), Tensor)
    }  # fmt: skip
    made: list[tuple[Tensor, nn.Module]] = []
    read: dict[str, list[Linear]] = {}

    def seen(name: str, given: Tensor, gave: Tensor) -> None:
        if name in norms:
            made.append((gave, norms[name]))  # held, so that no other tensor takes its place
            return
        for number, (tensor, _) in enumerate(made):
            if tensor is given or _same(tensor, given):
                read.setdefault(str(number), []).append(named[name])

    with watching(model, {**norms, **{layer.name: layer.module for layer in layers}}, seen):
        model.network(**kwargs)
    out = []
    for number, consumers in read.items():
        tensor, norm = made[int(number)]
        if norm.weight.shape == tensor.shape[-1:]:  # type: ignore[union-attr]
            index = torch.arange(tensor.shape[-1])
            out.append(Fold(tuple(consumers), norm, None, index, _offset(norm, tensor.shape[-1])))
    return out


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether one is a view of all of the other: heads read a slice of all positions."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _offset(norm: nn.Module, width: int) -> bool:
    """Whether the gain is 1 + weight (Gemma): with a weight of zero such a norm still gives something."""
    weight: Tensor = norm.weight  # type: ignore[assignment]
    before = weight.clone()
    x = torch.linspace(-1, 2, width, dtype=weight.dtype, device=weight.device)[None]
    try:
        weight.zero_()
        out = norm(x) - (norm.bias if getattr(norm, "bias", None) is not None else 0)
    finally:
        weight.copy_(before)
    return bool(out.abs().max() > 1e-3)


def _of_rows(model: Model, layers: Sequence[Linear]) -> list[Fold]:
    by_block: dict[int, dict[str, Linear]] = {}
    for layer in layers:
        if layer.block is not None:
            by_block.setdefault(layer.block, {}).setdefault(layer.role, layer)
    out = []
    for block in by_block.values():
        if {"gate", "up", "down"} <= set(block) and block["up"].shape[0] == block["down"].shape[1]:
            index = torch.arange(block["down"].shape[1])
            out.append(Fold((block["down"],), None, block["up"], index))
        if {"v", "o"} <= set(block) and (width := _head_width(model, block["o"])):
            keys, inputs = block["v"].shape[0], block["o"].shape[1]
            if keys % width == 0 and inputs % keys == 0:
                heads = torch.arange(inputs // width) // (inputs // keys)
                index = (heads[:, None] * width + torch.arange(width)).flatten()
                out.append(Fold((block["o"],), None, block["v"], index))
    return out


def _head_width(model: Model, layer: Linear) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    return getattr(config, "head_dim", None) or (layer.shape[1] // heads if heads else 0)
