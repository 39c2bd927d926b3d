"""Convolutional networks as the rest of this room sees them: pixels in, answers out, filters by name.

A network is any `nn.Module` that maps pixels [picture, channel, height, width] to logits, or a transformers network for
pictures, whose output holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.compression.quantization.modules import has_codes
from intarsia.errors import BadInput
from intarsia.sites import guest_of

BATCH = 256


def answers(network: nn.Module, pixels: Tensor) -> Tensor:
    """Logits of pixels [picture, channel, height, width]: what the network gives, or the `logits` of it."""
    out: Any = network(pixels)
    if isinstance(out, Tensor):
        return out
    logits = out.get("logits") if hasattr(out, "get") else None
    if logits is None:
        raise BadInput(f"{type(network).__name__} gives no logits: a classifier of pictures is wanted")
    return logits


class Answering(nn.Module):
    """A network as its `answers` alone: what graphs are drawn of."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [picture, channel, height, width] to logits."""
        return answers(self.network, pixels)


@torch.no_grad()
def all_answers(network: nn.Module, pixels: Tensor, batch: int = BATCH) -> Tensor:
    """`answers` of any number of pictures, in evaluation mode, without gradients."""
    with mode(network, training=False):
        return torch.cat([answers(network, part) for part in pixels.split(batch)])


def accuracy(network: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Share of pictures whose largest logit is that of their label; labels [picture] int64."""
    return float((all_answers(network, pixels).argmax(-1) == labels).float().mean())


@contextmanager
def mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside, and every module's own mode back afterwards."""
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def convolutions(network: nn.Module, skip: tuple[str, ...] = ()) -> dict[str, nn.Conv2d]:
    """Name -> layer of filters, in the network's order. Exactly `nn.Conv2d`: a subclass may do anything with its
    weight. `skip`: patterns of names to leave out."""
    return {
        name: module
        for name, module in network.named_modules()
        if type(module) is nn.Conv2d and not any(fnmatchcase(name, pattern) for pattern in skip)
    }


def check_network(network: nn.Module, who: str) -> None:
    """Raise `BadInput` unless this is a plain network with filters: no codes, nothing beside it."""
    if has_codes(network):
        raise BadInput(f"{who}: the network is quantized; change the original, and quantize last")
    if guest_of(network) is not None:
        raise BadInput(f"{who}: adapters stand beside this network; merge them into it first")
    if not convolutions(network):
        raise BadInput(f"{who}: {type(network).__name__} has no Conv2d; a convolutional network is wanted")


def check_pixels(network: nn.Module, pixels: Tensor, who: str, labels: Tensor | None = None) -> None:
    """Raise `BadInput` unless the network runs on two of these pixels and labels fit them."""
    if pixels.dim() != 4 or not len(pixels) or not pixels.is_floating_point():
        raise BadInput(f"{who}: pixels are floats [picture, channel, height, width], given {list(pixels.shape)}")
    if not bool(torch.isfinite(pixels).all()):
        raise BadInput(f"{who}: some pixels are not finite; look for NaN in the pictures")
    first = next(iter(convolutions(network).values()), None)
    try:
        out = all_answers(network, pixels[:2])
    except (RuntimeError, ValueError) as error:
        wanted = f"; its first filters read {first.in_channels} channels" if first is not None else ""
        raise BadInput(
            f"{who}: {type(network).__name__} does not run on pixels {list(pixels.shape[1:])}{wanted}"
        ) from error
    if labels is None:
        return
    if labels.shape != pixels.shape[:1] or labels.is_floating_point():
        raise BadInput(f"{who}: {len(pixels)} pictures want as many whole-number labels, given {list(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= out.shape[-1]:
        raise BadInput(f"{who}: labels are 0 to {out.shape[-1] - 1} here, given {int(labels.min())} to "
                       f"{int(labels.max())}")  # fmt: skip


def as_pair(value: Any) -> tuple[int, int]:
    """A kernel, stride or padding as two numbers."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
