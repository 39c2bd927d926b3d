"""Parameters of a choice, by arithmetic from the shapes of the full network."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from intarsia.compression.elastic.choices import Choice
    from intarsia.compression.elastic.supernet import Supernet


def parameters(supernet: Supernet, choice: Choice) -> int:
    """How many a network has, shared ones once."""
    narrow = supernet.form(choice) is supernet.narrow
    return _rest(supernet, narrow, choice.width) + sum(
        _block(supernet, narrow, block, neurons, choice.heads, choice.width)
        for block, neurons in zip(choice.blocks, choice.neurons, strict=True)
    )


def body(supernet: Supernet, choice: Choice) -> int:
    """The same without embedding and head."""
    network: Any = supernet.form(choice).model.network
    tables = (network.get_input_embeddings(), network.get_output_embeddings())
    each = {id(table.weight): table.weight.shape[0] for table in tables if table is not None}
    return parameters(supernet, choice) - sum(each.values()) * choice.width


def _block(supernet: Supernet, narrow: bool, block: int, neurons: int, heads: int, width: int) -> int:
    key = narrow, block, neurons, heads, width
    if key in supernet.sizes:
        return supernet.sizes[key]
    form = supernet.narrow if narrow else supernet.plain
    assert form is not None
    stem = f"{form.model.sites.main.path}.{block}."
    mlp, attention = form.blocks[block].mlp, form.blocks[block].attention
    one = torch.arange(1)
    cut = {name: (dim, neurons, mlp.size) for name, (dim, _) in mlp.cuts(one).items()}
    cut |= {name: (dim, heads, attention.size) for name, (dim, _) in attention.cuts(one).items()}
    axes = {**form.longer, **form.other}
    total = 0
    for name, tensor in form.model.network.named_parameters():
        if name.startswith(stem):
            shape = list(tensor.shape)
            if name in cut:
                dim, left, full = cut[name]
                shape[dim] = shape[dim] * left // full
            if name in axes:
                shape[axes[name]] = width
            total += prod(shape)
    supernet.sizes[key] = total
    return total


def _rest(supernet: Supernet, narrow: bool, width: int) -> int:
    key = narrow, width
    if key in supernet.sizes:
        return supernet.sizes[key]
    form = supernet.narrow if narrow else supernet.plain
    assert form is not None
    stem = f"{form.model.sites.main.path}."
    axes = {**form.longer, **form.other}
    total = 0
    for name, tensor in form.model.network.named_parameters():
        if not name.startswith(stem):
            shape = list(tensor.shape)
            if name in axes:
                shape[axes[name]] = width
            total += prod(shape)
    supernet.sizes[key] = total
    return total
