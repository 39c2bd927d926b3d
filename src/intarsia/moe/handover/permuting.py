"""Experts in another order, the function the same: what any engine can serve that puts experts on ranks in order."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.moe.placement.placement import Placement
from intarsia.moe.routing.recording import routed_layers, router_sha256
from intarsia.sites import read, run

if TYPE_CHECKING:
    from intarsia.models import Model


def permuted(model: Model, placement: Placement) -> Model:
    """A copy in which every layer's experts lie by device, then by number. Raises `BadInput` as `check_for`, and for a
    router that chooses among groups which the order would mix."""
    check_for(model, placement)
    if placement.experts % placement.devices or any(
        np.ptp(np.bincount(row, minlength=placement.devices)) for row in placement.device_of
    ):
        raise BadInput(
            "the placement has more experts on some devices than on others; engines cut the file in equal parts, so "
            "the order alone cannot say that"
        )
    if placement.replicas:
        warnings.warn(Note("copies of experts cannot be in a checkpoint: they are left out"), stacklevel=3)
    orders = [np.argsort(row, kind="stable") for row in placement.device_of]
    _groups_stay(model.config, orders)
    out = model.copy()
    with torch.no_grad():
        for name, order in zip(routed_layers(out), orders, strict=True):
            moved = 0
            for module in _parts(out, name, len(order)):
                moved += _reorder(module, torch.as_tensor(order))
            if moved < 2:
                raise BadInput(f"{name}: its experts' weights were not found; they are not in the form that is known")
    _same(model, out, orders)
    return out


def check_for(model: Model, placement: Placement) -> None:
    """Raise `BadInput` unless the placement is for this model: its routers by their hash, where that is known, else the
    number of routed layers and experts."""
    names = routed_layers(model)
    if placement.router_sha256 and placement.router_sha256 != router_sha256(model):
        raise BadInput(
            f"the placement was made for another model ({placement.model or 'unknown'}) than {model.identity.source}: "
            "its routers have other weights"
        )
    experts = model.sites.tap(names[0]).module.weight.shape[0]
    if (len(names), experts) != placement.device_of.shape:
        layers, wanted = placement.device_of.shape
        raise BadInput(
            f"the placement is for {layers} routed layers of {wanted} experts, {model.identity.source} has "
            f"{len(names)} of {experts}"
        )


def _parts(model: Model, site: str, experts: int) -> list[nn.Module]:
    """The router of a layer, the module it stands in, and those that own the experts' weights."""
    router = model.sites.tap(site).module
    number = int(site.split("layers.")[-1].split(".")[0])
    block = model.sites.block(site.rpartition(".")[0])[0].blocks[number]
    parents = [m for m in block.modules() if any(child is router for child in m.children())]
    holders = [
        m
        for m in block.modules()
        if m is not router
        and (
            any(p.dim() == 3 and len(p) == experts for p in m.parameters(recurse=False))
            or (isinstance(m, nn.ModuleList) and len(m) == experts)
        )
    ]
    return list(dict.fromkeys([router, *parents, *holders]))


def _reorder(module: nn.Module, order: Tensor) -> int:
    """Reorder all that is by expert; how many things were."""
    count = 0
    if isinstance(module, nn.ModuleList):
        module[:] = [module[int(i)] for i in order]
        return 1
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.dim() and len(tensor) == len(order):
            tensor.copy_(tensor[order.to(tensor.device)].clone())
            count += 1
    return count


def _groups_stay(config: Any, orders: list[NDArray[np.int64]]) -> None:
    groups = getattr(config, "n_group", None) or 1
    if groups == 1:
        return
    size = len(orders[0]) // groups
    for layer, order in enumerate(orders):
        if any(len(set((order[i : i + size] // size).tolist())) > 1 for i in range(0, len(order), size)):
            raise BadInput(
                f"routed layer {layer}: the router chooses among {groups} groups of experts first, and this placement "
                "would mix them; such a model keeps its order (place whole groups, or serve it by an expert map)"
            )


def _same(before: Model, after: Model, orders: list[NDArray[np.int64]]) -> None:
    """Run both: equal logits up to the order of sums, equal experts by their new numbers."""
    generator = torch.Generator().manual_seed(0)
    words = int(before.network.get_input_embeddings().num_embeddings)
    ids = torch.randint(0, words, (2, 16), generator=generator).to(before.device)
    names = routed_layers(before)
    a, b = (read(m, ids, at=names) for m in (before, after))
    for name, order in zip(names, orders, strict=True):
        new = torch.as_tensor(np.argsort(order), device=a[name].device)[a[name].long()]
        share = float((new.sort(-1).values == b[name].long().sort(-1).values).float().mean())
        if share < 0.999:  # (two equal weights may be taken in another order)
            raise IntarsiaError(f"{name}: {1 - share:.1%} of the choices changed with the order of the experts")
    first, second = (run(m, ids).logits.double() for m in (before, after))
    apart, largest = float((first - second).abs().max()), float(first.abs().max())
    # Most routers take their softmax in float32, whatever the network's own precision.
    limit = 1e-3 if before.dtype in (torch.float32, torch.float64) else 5e-2
    if apart > limit * max(1.0, largest):
        raise IntarsiaError(f"the logits changed by {apart:.2g} with the order of the experts")
