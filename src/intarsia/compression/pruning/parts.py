"""What a neuron and a head are made of: rows of the layers before them, columns of the one after.

A neuron is a row of `gate` and `up` and a column of `down`. A key-value head goes with the query heads that read it
(grouped-query attention, Ainslie et al. 2023, arXiv 2305.13245): rows of `q`, `k` and `v`, columns of `o`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from intarsia.compression.linears import Linear
from intarsia.errors import BadInput

WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "hidden_dim", "d_ff")
Cuts = dict[str, tuple[int, Tensor]]
"""Name of a parameter -> the dimension that is cut, and the numbers that are left of it."""


@dataclass(frozen=True)
class Mlp:
    """The MLP of one block. into: `up`, or `gate` and `up`, or both in one (`gate_up`: gates first)."""

    into: tuple[Linear, ...]
    down: Linear

    @property
    def size(self) -> int:
        """Neurons."""
        return self.down.shape[1]

    def columns(self, kept: Tensor) -> Tensor:
        """Inputs of `down` that the neurons `kept` are."""
        return kept

    def cuts(self, kept: Tensor) -> Cuts:
        """What is left of the parameters when the neurons `kept` are."""
        found = _columns(self.down, kept)
        for layer in self.into:
            found |= _rows(layer, torch.cat((kept, kept + self.size)) if layer.role == "gate_up" else kept)
        return found

    def scores(self, moment: Tensor) -> Tensor:
        """[neuron] mean square of what each one writes. moment: [neuron, neuron] of the activations."""
        return moment.diagonal() * self.down.weight.float().square().sum(0)


@dataclass(frozen=True)
class Attention:
    """The attention of one block. into: `q`, `k`, `v`, or all in one (`qkv`: queries, keys, values).

    - groups: key-value heads. shared: query heads that read one. width: of a head."""

    into: tuple[Linear, ...]
    out: Linear
    groups: int
    shared: int
    width: int

    @property
    def size(self) -> int:
        """Key-value heads."""
        return self.groups

    def columns(self, kept: Tensor) -> Tensor:
        """Inputs of `out` that come from the key-value heads `kept`."""
        return _spread(kept, self.shared * self.width)

    def cuts(self, kept: Tensor) -> Cuts:
        """What is left of the parameters when the key-value heads `kept` are."""
        query, key = self.columns(kept), _spread(kept, self.width)
        queries, keys = self.groups * self.shared * self.width, self.groups * self.width
        found = _columns(self.out, query)
        for layer in self.into:
            rows = {"q": query, "qkv": torch.cat((query, queries + key, queries + keys + key))}.get(layer.role, key)
            found |= _rows(layer, rows)
        return found

    def scores(self, moment: Tensor) -> Tensor:
        """[key-value head] mean square of what its query heads write. moment: [in, in] of the inputs of `out`."""
        weight = self.out.weight.float()
        found = []
        for group in range(self.groups):
            some = self.columns(torch.tensor([group])).to(weight.device)
            part = weight[:, some]
            found.append(((part @ moment[some][:, some]) * part).sum())
        return torch.stack(found)


def mlp_of(layers: Sequence[Linear], who: str) -> Mlp:
    """The MLP among the layers of one block. Raises `BadInput` where there is none, or more than one."""
    into = tuple(layer for layer in layers if layer.role in ("gate", "up", "gate_up"))
    down = [layer for layer in layers if layer.role == "down"]
    roles = sorted(layer.role for layer in into)
    if len(down) != 1 or roles not in (["up"], ["gate", "up"], ["gate_up"]):
        have = ", ".join(layer.role for layer in layers) or "none"
        raise BadInput(f"{who}: neurons need one plain MLP in every block; its linear layers are: {have} (neurons=0)")
    return Mlp(into, down[0])


def attention_of(layers: Sequence[Linear], config: Any, who: str) -> Attention:
    """The attention among the layers of one block. Raises `BadInput` where there is none, or one of another make."""
    into = tuple(layer for layer in layers if layer.role in ("q", "k", "v", "qkv"))
    out = [layer for layer in layers if layer.role == "o"]
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    roles = sorted(layer.role for layer in into)
    rows = sum(layer.shape[0] for layer in into)
    width = rows // (heads + 2 * groups)
    wanted = (heads * width, [(heads + 2 * groups) * width])
    if len(out) != 1 or roles not in (["k", "q", "v"], ["qkv"]) or (out[0].shape[1], [rows]) != wanted:
        have = ", ".join(layer.role for layer in layers) or "none"
        raise BadInput(f"{who}: heads need one plain attention in every block; its linear layers are: {have} (heads=0)")
    return Attention(into, out[0], groups, heads // groups, width)


def width_key(config: Any, who: str) -> str:
    """The field of a config that says how many neurons an MLP has."""
    for key in WIDTHS:
        if hasattr(config, key):
            return key
    raise BadInput(f"{who}: {type(config).__name__} has no field for the width of its MLPs ({', '.join(WIDTHS)})")


def _spread(numbers: Tensor, width: int) -> Tensor:
    return (numbers[:, None] * width + torch.arange(width)).flatten()


def _rows(layer: Linear, kept: Tensor) -> Cuts:
    cuts: Cuts = {f"{layer.name}.weight": (1 if isinstance(layer.module, Conv1D) else 0, kept)}
    if getattr(layer.module, "bias", None) is not None:
        cuts[f"{layer.name}.bias"] = (0, kept)
    return cuts


def _columns(layer: Linear, kept: Tensor) -> Cuts:
    return {f"{layer.name}.weight": (0 if isinstance(layer.module, Conv1D) else 1, kept)}
