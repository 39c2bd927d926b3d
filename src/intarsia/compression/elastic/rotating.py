"""The residual stream in another basis: gains folded into what reads it, the stream turned by one orthogonal matrix,
its minor directions then the last ones of every tensor.

    x' = x Q        writers (embedding, o, down):  W' = Q^T W        readers (q, k, v, gate, up, head):  W' = W Q

RMSNorm without a gain commutes with Q, so nothing changes while all directions are there. One basis serves the whole
network: SliceGPT has one a block, nearer to each block's inputs, and pays with two adapters Q_l^T Q_{l+1} a block that
no plain Hugging Face network has. Q holds the eigenvectors of the mean second moment of what all norms give, largest
first.

Where k of d directions are left, an RMSNorm divides by another mean. With the stream made sqrt(k/d) times as long it
divides by the same as before, eps included, and a gain of sqrt(d/k) gives the old length back.

Source: Ashkboos et al. 2024, SliceGPT, arXiv 2401.15024, §3 (computational invariance, slicing)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.compression.linears import Linear, linears
from intarsia.compression.pruning.rebuilding import filled, prove, said, skeleton, text_config
from intarsia.compression.quantization.folding import TOKENS, Fold, norm_folds
from intarsia.compression.statistics import LayerStats, collect, uncached
from intarsia.errors import BadInput
from intarsia.sites import batch_of

if TYPE_CHECKING:
    from intarsia.models import Model

Axes = dict[str, int]
"""Name of a tensor -> the dimension that is the stream's."""


@dataclass(frozen=True)
class Stream:
    """Who writes into the residual stream of a network and who reads it.

    - table: the input embedding. writers: linear layers that are added to the stream. reads: norms of the stream with
      the layers that read them; the head is one of these. width: of the stream."""

    table: nn.Module
    writers: tuple[Linear, ...]
    reads: tuple[Fold, ...]
    width: int

    def axes(self, network: nn.Module) -> tuple[Axes, Axes]:
        """The tensors along the stream: those that are multiplied by what its length is (writers, the embedding), and
        all others, norms among them."""
        names = {module: name for name, module in network.named_modules()}
        longer: Axes = {f"{names[self.table]}.weight": 1}
        for layer in self.writers:
            longer[f"{layer.name}.weight"] = 0
            if getattr(layer.module, "bias", None) is not None:
                longer[f"{layer.name}.bias"] = 0
        other: Axes = {}
        for read in self.reads:
            other[f"{names[read.norm]}.weight"] = 0  # type: ignore[index]
            other |= {f"{layer.name}.weight": 1 for layer in read.consumers}
        return longer, other

    def gains(self, network: nn.Module) -> dict[str, float]:
        """Names of the norms' gains -> what is to be added to them (1 in Gemma)."""
        names = {module: name for name, module in network.named_modules()}
        return {f"{names[read.norm]}.weight": float(read.offset) for read in self.reads}  # type: ignore[index]


def stream_of(model: Model, who: str) -> Stream:
    """Raises `BadInput` for networks whose stream cannot be turned: LayerNorm, norms that write into it, GPT-2's
    transposed layers, position tables."""
    network: Any = model.network
    kind = type(network).__name__
    table, head = network.get_input_embeddings(), network.get_output_embeddings()
    if head is None or not isinstance(table, nn.Embedding):
        raise BadInput(f"{who}: the width of {kind} cannot change: a language model with an output head is wanted")
    layers = linears(model, head=True)
    ids = torch.arange(TOKENS)[None] * 7 % model.config.get_text_config().vocab_size
    with torch.no_grad():
        reads = norm_folds(model, layers, {**batch_of(model, ids).kwargs, **uncached(model)})
    width = table.weight.shape[1]
    known = {id(read.norm) for read in reads}
    for name, module in network.named_modules():
        gain = getattr(module, "weight", None)
        if "norm" in type(module).__name__.lower() and gain is not None and gain.shape == (width,):
            if id(module) not in known:
                raise BadInput(
                    f"{who}: the width of {kind} cannot change: '{name}' writes what it scales to the stream"
                )
            if not _is_rms(module, width):
                raise BadInput(f"{who}: the width of {kind} cannot change: '{name}' is a LayerNorm; RMSNorm is wanted")
    readers = {layer.name for read in reads for layer in read.consumers}
    writers = tuple(layer for layer in layers if layer.name not in readers)
    if any(layer.role not in ("o", "down") or layer.shape[0] != width for layer in writers) or not readers:
        raise BadInput(
            f"{who}: the width of {kind} cannot change: not all its layers read a norm or write to the stream"
        )
    if any(type(layer.module) is not nn.Linear for layer in layers):
        raise BadInput(f"{who}: the width of {kind} cannot change: its layers are transposed")
    return Stream(table, writers, tuple(reads), width)


def _is_rms(norm: nn.Module, width: int) -> bool:
    """Whether a norm leaves the mean in place."""
    weight: Any = norm.weight
    with torch.no_grad():
        return bool(norm(torch.ones(1, width, dtype=weight.dtype, device=weight.device)).abs().max() > 0)


def untied(model: Model, who: str) -> Model:
    """A copy whose head has a table of its own: a gain folded into the head makes the two differ."""
    network: Any = model.network
    if network.get_output_embeddings().weight is not network.get_input_embeddings().weight:
        return model.copy()
    if text_config(model, who) is not model.config:
        raise BadInput(f"{who}: {type(network).__name__} ties embedding and head in a part of its config: width stays")
    keep = lambda name, tensor: (name, tensor)  # noqa: E731
    new = filled(network, skeleton(network, {"tie_word_embeddings": False}, keep, who), keep)
    new = copy.deepcopy(new)  # (its own memory; what is one tensor stays one)
    head = new.get_output_embeddings()
    head.weight = nn.Parameter(new.get_input_embeddings().weight.detach().clone())
    return model.with_network(new)


@torch.no_grad()
def fold_gains(stream: Stream) -> None:
    """Every norm's gain becomes 1, and its readers' columns take it over."""
    for read in stream.reads:
        weight: Any = read.norm.weight  # type: ignore[union-attr]
        gain = weight + float(read.offset)
        for layer in read.consumers:
            layer.set((layer.weight.double() * gain.double()).to(layer.weight.dtype))
        weight.fill_(1 - float(read.offset))


def read_moment(stream: Stream, stats: dict[str, LayerStats]) -> Tensor:
    """[width, width] float64: the mean over all norms of the second moment of what they give. stats: of readers."""
    seen = [stats[read.consumers[0].name].moment for read in stream.reads if read.consumers[0].name in stats]
    return sum((m.double() for m in seen), torch.zeros(stream.width, stream.width, dtype=torch.float64)) / len(seen)


def principal(moment: Tensor) -> Tensor:
    """[width, width] float64: eigenvectors as columns, that of the largest eigenvalue first."""
    return torch.linalg.eigh(moment.double().cpu())[1].flip(1)


@torch.no_grad()
def turn(stream: Stream, basis: Tensor) -> None:
    """The stream in another orthogonal basis (its columns are the new directions). Gains must be folded."""
    table: Any = stream.table.weight
    basis = basis.to(table.device)
    table.copy_((table.double() @ basis).to(table.dtype))
    for layer in stream.writers:
        layer.set((basis.T @ layer.weight.double()).to(layer.weight.dtype))
        if (bias := getattr(layer.module, "bias", None)) is not None:
            bias.copy_((bias.double() @ basis).to(bias.dtype))
    for read in stream.reads:
        for layer in read.consumers:
            layer.set((layer.weight.double() @ basis).to(layer.weight.dtype))


@dataclass(frozen=True)
class Turned:
    """A copy of a model in its principal basis, untied.

    - stream: of it. energy: [width] the share of what the norms give that each direction holds. moments: by the name of
      a reader, [width, width] float32, the second moment of what it reads."""

    model: Model
    stream: Stream
    energy: Tensor
    moments: dict[str, Tensor]


def turned(model: Model, windows: Sequence[Sequence[int]], who: str) -> Turned:
    """Turn a copy of a model. windows: of token ids, of calibration text."""
    whole = untied(model, who)
    stream = stream_of(whole, who)
    fold_gains(stream)
    first = [read.consumers[0] for read in stream.reads]
    stats = collect(whole, first, windows)
    moment = read_moment(stream, stats)
    basis = principal(moment)
    energy = (basis * (moment.cpu() @ basis)).sum(0)
    turn(stream, basis)
    prove(said(model.network), whole.network, who)
    moments: dict[str, Tensor] = {}
    for read in stream.reads:
        if (seen := stats.get(read.consumers[0].name)) is not None:
            own = (basis.T @ seen.moment.double().cpu() @ basis).float().to(seen.moment.device)
            moments |= {layer.name: own for layer in read.consumers}
    return Turned(whole, stream, (energy / energy.sum()).float(), moments)


def lengths(width: int, full: int) -> tuple[float, float]:
    """What the stream's length and the norms' gains are multiplied by when `width` of `full` directions are left."""
    return math.sqrt(width / full), math.sqrt(full / width)
