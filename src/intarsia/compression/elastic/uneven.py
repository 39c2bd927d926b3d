"""Blocks with different numbers of neurons, which the config of no plain network can say: the shapes of their layers
travel in `quantization_config`, the one door that transformers leaves open (`quantization.hf`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from intarsia.sites import exchange


def lay_shapes(network: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Put linear layers without numbers in the place of others. shapes: of the weight, by the layer's name."""
    for name, (rows, width) in shapes.items():
        old: Any = network.get_submodule(name)
        if tuple(old.weight.shape) == (rows, width):
            continue
        like = dict(dtype=old.weight.dtype, device=old.weight.device)
        new: Any
        if isinstance(old, Conv1D):
            new = Conv1D(width, rows).to(**like)
        else:
            new = nn.utils.skip_init(nn.Linear, width, rows, bias=old.bias is not None, **like)
        exchange(network, name, new.train(old.training))


def mark_shapes(network: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Note on a network what its `config.json` will say."""
    from intarsia.compression.quantization.hf import IntarsiaQuantizationConfig, mark

    mark(network, IntarsiaQuantizationConfig(shapes={name: list(shape) for name, shape in shapes.items()}))
