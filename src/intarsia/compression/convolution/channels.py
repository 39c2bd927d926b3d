"""Which channels belong together: read off the network's own graph (`torch.export`), so that a channel can go from
every tensor that knows of it at once: the filter that makes it, its batch norm, the filters and neurons that read it,
and the channels that are added to it.

A *unit* is a set of channels that can only go together; a *group*, the units that share layers. What an operator does
to channels is known for those below; a channel that meets any other operator, or leaves the network, stays."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.compression.convolution.networks import Answering, as_pair, mode
from intarsia.errors import BadInput, first_line

# Work on each channel by itself and on nothing else.
_SAME = {
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "silu", "silu_", "gelu", "gelu_", "sigmoid", "hardswish",
    "hardswish_", "hardsigmoid", "hardsigmoid_", "leaky_relu", "leaky_relu_", "elu", "elu_", "tanh", "softplus", "mish",
    "mish_", "dropout", "dropout_", "feature_dropout", "clone", "contiguous", "detach", "alias", "to", "_to_copy",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
    "upsample_bilinear2d",
}  # fmt: skip
_SHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze"}
_PAIRS = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum"}


@dataclass(frozen=True)
class Use:
    """One tensor that knows of units: `name` in the state dict, along `dim`; `units`: the unit of each index there.

    makes: whether these channels are made here (a filter's output), and not only read or scaled."""

    name: str
    dim: int
    units: np.ndarray
    makes: bool = False


@dataclass
class Group:
    """Units that share layers: `units` by number, and the layers that make them."""

    units: list[int]
    makers: list[str]


@dataclass
class Channels:
    """- uses: of all tensors. groups: what may be cut, in the network's order. fixed: units that stay.
    - depthwise: modules whose number of groups is their number of channels."""

    uses: list[Use]
    groups: list[Group]
    fixed: set[int]
    depthwise: set[str] = field(default_factory=set)

    def kept(self, gone: Iterable[int]) -> dict[tuple[str, int], Tensor]:
        """(tensor, dim) -> the indices that stay, where not all do."""
        lost = set(gone)
        if wrong := lost & self.fixed:
            raise BadInput(f"{len(wrong)} of these channels cannot go: something reads them all")
        out = {}
        for use in self.uses:
            stay = np.array([unit not in lost for unit in use.units])
            if not stay.all():
                out[use.name, use.dim] = torch.from_numpy(stay.nonzero()[0])
        return out


class _Sets:
    """Union-find over whole numbers."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self, count: int) -> np.ndarray:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def join(self, a: Iterable[int], b: Iterable[int]) -> None:
        for one, other in zip(a, b, strict=True):
            low, high = sorted((self.find(int(one)), self.find(int(other))))
            self.parent[high] = low


def channels_of(network: nn.Module, pixels: Tensor, who: str) -> Channels:
    """The channels of a network, from its graph on two of these pixels.

    Raises `BadInput` where `torch.export` cannot follow the network."""
    sample = pixels[:2] if len(pixels) > 1 else pixels.repeat(2, 1, 1, 1)
    whole = Answering(network)
    with mode(network, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(whole, (sample,))
        except Exception as error:  # it raises what it likes at code it cannot follow
            raise BadInput(
                f"{who}: the graph of {type(network).__name__} cannot be followed ({first_line(error, 160)})"
            ) from error
    return _Reader(network, exported).read()


class _Reader:
    def __init__(self, network: nn.Module, exported: Any):
        signature = exported.graph_signature
        known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.names = {node: name.removeprefix("network.") for node, name in known.items()}
        self.nodes = list(exported.graph.nodes)
        self.network, self.sets = network, _Sets()
        self.uses: list[Use] = []
        self.at: dict[Any, tuple[np.ndarray, int] | None] = {}  # node -> channel of each index, and the dimension
        self.pinned: list[int] = []
        self.depthwise: set[str] = set()
        self.seen: dict[tuple[str, int], np.ndarray] = {}

    def read(self) -> Channels:
        for node in self.nodes:
            if node.op == "output":
                self._pin(node.all_input_nodes)
            elif node.op == "call_function":
                self.at[node] = self._step(node)
        return self._gathered()

    def _step(self, node: Any) -> tuple[np.ndarray, int] | None:
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        tracked = [n for n in node.all_input_nodes if self.at.get(n) is not None]
        if name in ("conv2d", "linear"):
            return self._layer(node, name)
        if name == "batch_norm":
            return self._norm(node)
        if not tracked:
            return None
        first = self.at[tracked[0]]
        if name in _SAME and len(tracked) == 1:
            return first
        if name == "mean" and self._keeps_channels(node, first):  # type: ignore[arg-type]
            return first
        if name in _PAIRS and (done := self._pair(node, tracked)):
            return done
        if name == "cat" and (done := self._joined(node)):
            return done
        if name in ("flatten", "view", "reshape", "squeeze", "unsqueeze") and (
            done := self._reshaped(node, tracked[0])
        ):
            return done
        self._pin(tracked)
        return None

    def _layer(self, node: Any, kind: str) -> tuple[np.ndarray, int]:
        given, weight, bias = (*node.args, None)[:3]
        name, shape = self.names.get(weight.name), tuple(weight.meta["val"].shape)
        dim = 1 if kind == "conv2d" else len(node.meta["val"].shape) - 1
        made, at = self.sets.new(shape[0]), self.at.get(given)
        groups = node.args[6] if kind == "conv2d" and len(node.args) > 6 else 1
        if name is None:  # a weight that is computed: nothing of it can be cut
            self._pin([given])
            self.pinned.extend(made)
        elif groups == 1:
            if at is not None and at[1] == dim:
                self._use(name, 1, at[0])
            else:
                self._pin([given])
        elif at is not None and groups == shape[0] == len(at[0]):
            made = at[0]  # depthwise: a channel's filter goes with it
            self.depthwise.add(name.rpartition(".")[0])
        else:
            self._pin([given])
            self.pinned.extend(made)
        if name is not None:
            self._use(name, 0, made, makes=groups == 1)
        if bias is not None and (own := self.names.get(bias.name)) is not None:
            self._use(own, 0, made)
        return made, dim

    def _norm(self, node: Any) -> tuple[np.ndarray, int] | None:
        given = node.args[0]
        at = self.at.get(given)
        if at is None or at[1] != 1:
            self._pin([given])
            return None
        for argument in node.args[1:5]:
            if argument is None:
                continue
            if (name := self.names.get(argument.name)) is None:
                self._pin([given])
            else:
                self._use(name, 0, at[0])
        return at

    def _pair(self, node: Any, tracked: list[Any]) -> tuple[np.ndarray, int] | None:
        others = [n for n in node.all_input_nodes if n not in tracked]
        rank = len(node.meta["val"].shape)
        if any(len(n.meta["val"].shape) != rank for n in tracked):
            return None
        if any(prod(n.meta["val"].shape) != 1 for n in others):
            return None
        (ids, dim), *rest = [self.at[n] for n in tracked]  # type: ignore[misc]
        if any(r[1] != dim or len(r[0]) != len(ids) for r in rest):  # type: ignore[index]
            return None
        for other, _ in rest:  # type: ignore[misc]
            self.sets.join(ids, other)
        return ids, dim

    def _joined(self, node: Any) -> tuple[np.ndarray, int] | None:
        parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else 0
        at = [self.at.get(n) for n in parts]
        if any(a is None or a[1] != dim % len(node.meta["val"].shape) for a in at):
            return None
        return np.concatenate([a[0] for a in at]), at[0][1]  # type: ignore[index]

    def _keeps_channels(self, node: Any, at: tuple[np.ndarray, int]) -> bool:
        rank = len(node.args[0].meta["val"].shape)
        dims = node.args[1] if len(node.args) > 1 else []
        return at[1] == 1 and bool(dims) and {d % rank for d in dims} == set(range(2, rank))

    def _reshaped(self, node: Any, given: Any) -> tuple[np.ndarray, int] | None:
        """A shape in which the channels, each with all its places, still follow one another along dimension 1."""
        at = self.at[given]
        before, after = tuple(given.meta["val"].shape), tuple(node.meta["val"].shape)
        if at is None or at[1] != 1 or len(after) < 2 or before[0] != after[0]:
            return None
        if before[1] == after[1] and prod(before) == prod(after):
            return at
        if len(after) == 2 and prod(before) == prod(after):
            return np.repeat(at[0], prod(before[2:])), 1
        return None

    def _use(self, name: str, dim: int, ids: np.ndarray, makes: bool = False) -> None:
        if (earlier := self.seen.get((name, dim))) is not None:
            self.sets.join(earlier, ids)  # a layer that is used twice has one set of filters
            return
        self.seen[name, dim] = ids
        self.uses.append(Use(name, dim, ids, makes))

    def _pin(self, nodes: Iterable[Any]) -> None:
        for node in nodes:
            if (at := self.at.get(node)) is not None:
                self.pinned.extend(at[0])

    def _gathered(self) -> Channels:
        root = np.array([self.sets.find(i) for i in range(len(self.sets.parent))], dtype=np.int64)
        uses = [Use(u.name, u.dim, root[u.units], u.makes) for u in self.uses]
        fixed = {int(root[i]) for i in self.pinned}
        layers = _Sets()
        layers.new(len(root))
        for use in uses:
            if use.makes:
                layers.join([int(use.units[0])] * len(use.units), use.units)
        by: dict[int, Group] = {}
        for use in uses:
            if not use.makes:
                continue
            group = by.setdefault(layers.find(int(use.units[0])), Group([], []))
            group.makers.append(use.name)
            group.units = list(dict.fromkeys([*group.units, *use.units.tolist()]))
        groups = [g for g in by.values() if not fixed & set(g.units)]
        return Channels(uses, groups, fixed, self.depthwise)


def fit_attributes(network: nn.Module, depthwise: Iterable[str] = ()) -> None:
    """Make what layers say of their sizes agree with their tensors, in place."""
    single = set(depthwise)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            out, inner = module.weight.shape[:2]
            if name in single:
                module.groups = out
            module.out_channels, module.in_channels = out, inner * module.groups
            module.kernel_size = as_pair(module.weight.shape[2:])
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = len(module.running_mean if module.running_mean is not None else module.weight)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
