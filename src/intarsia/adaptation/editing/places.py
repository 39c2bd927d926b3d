"""Where a network is edited: the sites of a layer's MLP, and the linear layer that is its down projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.adaptation.editing.exact import exact
from intarsia.errors import BadInput
from intarsia.sites import guest_of, read

if TYPE_CHECKING:
    from intarsia.models import Model

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Place:
    """One layer that can be edited.

    - key, value, stream: names of its sites: the input of its down projection, what the MLP adds, the stream after it.
    - module: the down projection. scale: what the block multiplies its output by."""

    layer: int
    key: str
    value: str
    stream: str
    module: Any
    scale: float

    def weight(self) -> Tensor:
        """[width, neuron] float64: W of v = W k + b, whichever way round the layer keeps it."""
        weight = exact(self.module.weight.detach())
        return weight.T if _transposed(self.module) else weight

    @property
    def neurons(self) -> int:
        """How many the layer has."""
        return self.module.weight.shape[0 if _transposed(self.module) else 1]

    def value_of(self, keys: Tensor) -> Tensor:
        """What the MLP adds to the stream for keys [n, neuron]: [n, width] float64."""
        values = exact(keys) @ self.weight().T
        if self.module.bias is not None:
            values = values + exact(self.module.bias.detach())
        return values * self.scale

    def add(self, change: Tensor) -> None:
        """Add a change [width, neuron] of the weights, rounded once to their precision."""
        new = self.weight() + change / self.scale
        weight = self.module.weight
        with torch.no_grad():
            weight.copy_((new.T if _transposed(self.module) else new).to(weight.dtype))


def places(model: Model, layers: Sequence[int] = ()) -> list[Place]:
    """The layers of the text tower that can be edited; or those asked for (negative ones count from the end).

    Raises `BadInput` with the reason where one that is asked for, or every layer, cannot."""
    sites = model.sites
    if guest_of(model.network) is not None:
        raise BadInput(
            "adaptation.edit: modules stand beside this network (skills, merged tokens): edit the plain network before "
            "they are put there"
        )
    tower, count = sites.main, len(sites.blocks)
    if bad := next((layer for layer in layers if not -count <= layer < count), None):
        raise BadInput(f"adaptation.edit: layers: there is no layer {bad}; the network has {count} (0 to {count - 1})")
    found, reasons = [], {}
    for layer in sorted({layer % count for layer in layers}) or range(count):
        name = f"{tower.prefix}layers.{layer}"
        names = [f"{name}.{site}" for site in ("mlp_act", "mlp_out", "resid_post")]
        if missing := next((n for n in names if n not in sites), None):
            reasons[layer] = sites.disabled.get(missing, f"it has no site {missing}")
            continue
        module, form = sites.tap(names[0]).module, sites.wiring[tower.name][layer].form
        if form not in ("pre-norm", "parallel"):
            reasons[layer] = f"its blocks are {form}: what the MLP adds is normed with the stream"
        elif why := _why_not(module):
            reasons[layer] = why
        else:
            found.append(Place(layer, *names, module, sites.tap(names[1]).scale))
    asked = next(iter(reasons), None) if layers else None
    if reasons and (asked is not None or not found):
        layer = asked if asked is not None else next(iter(reasons))
        raise BadInput(f"adaptation.edit: layer {layer} cannot be edited: {reasons[layer]}")
    return found


def _why_not(module: Any) -> str:
    from transformers.pytorch_utils import Conv1D

    kind = type(module).__name__
    if hasattr(module, "base_layer"):
        return "its down projection has an adapter: merge it first"
    plain = isinstance(module, torch.nn.Linear | Conv1D) and module.weight.dtype in FLOATS and module.weight.dim() == 2
    if not plain:
        return f"its down projection is quantized ({kind}): edit the model before it is quantized"
    if hasattr(module, "parametrizations"):
        return "its down projection's weight is computed from others (a parametrization): remove that first"
    return ""


def check_linear(model: Model, where: Sequence[Place], ids: Sequence[int]) -> list[Place]:
    """Those of the places where what the MLP adds is what its down projection gives, seen on a prompt.

    A norm after it (Gemma's sandwich), or something beside it, would make the closed form false."""
    names = [name for place in where for name in (place.key, place.value)]
    acts = read(model, [list(ids)], names)
    kept = []
    for place in where:
        given = exact(acts[place.value][0])
        gap = (place.value_of(acts[place.key][0]) - given).abs().max()
        if gap <= TOLERANCE[model.dtype] * given.abs().max():
            kept.append(place)
    return kept


def _transposed(module: Any) -> bool:
    """GPT-2's `Conv1D` keeps [input, output]."""
    return not isinstance(module, torch.nn.Linear)
