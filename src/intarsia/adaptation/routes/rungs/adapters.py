"""Bottleneck adapters beside the MLPs: MLP(h) + W_up relu(W_down h), with W_up = 0 at the start.

Source: Houlsby et al. 2019; beside the feed-forward layer in place of behind it: He et al. 2022, "Towards a Unified
View of Parameter-Efficient Transfer Learning", §4 (parallel adapters, there better). PEFT has none of this form. They
are not linear, so they cannot be merged: they stand beside the network through `intarsia.sites`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from intarsia.adaptation.routes.rungs.tuned import Part, Tuned
from intarsia.errors import BadInput
from intarsia.sites import Guest, put_beside
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    from intarsia.adaptation.routes.setting import Setting
    from intarsia.models import Model


class Bottleneck(nn.Module):
    """From what a module reads to what is added to its output; kept in float32."""

    def __init__(self, inputs: int, units: int, outputs: int, device: torch.device):
        super().__init__()
        self.down = nn.Linear(inputs, units, device=device)
        self.up = nn.Linear(units, outputs, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        return self.up(torch.relu(self.down(states.float()))).to(states.dtype)


class Bottlenecks(Guest):
    """All of a network's, by the module they stand beside."""

    def __init__(self, names: Sequence[str], parts: Sequence[Bottleneck]):
        super().__init__()
        self.names, self.parts = list(names), nn.ModuleList(parts)


class Adapter(Tuned):
    """Trained beside the frozen network."""

    name = "adapter"
    what = "bottlenecks beside the MLPs"
    setting_names = ("layers_from", "bottleneck")

    def possible(self, setting: Setting) -> None:
        mlps(setting.model, first_block(setting.model.network, setting.config.layers_from))

    def put(self, model: Model, setting: Setting) -> Part:
        names = mlps(model, first_block(model.network, setting.config.layers_from))
        width = model.sites.main.width
        model.network.requires_grad_(False)
        modules = [model.network.get_submodule(name) for name in names]
        parts = [
            Bottleneck(_inputs(module, width), setting.config.bottleneck, width, model.device) for module in modules
        ]
        guest = Bottlenecks(names, parts)
        put_beside(model.network, guest, dict(zip(names, parts, strict=True)))
        return Part(dict(guest.named_parameters()), model.network, lambda: model.network.requires_grad_(True))


def mlps(model: Model, first: int) -> list[str]:
    """Full names of the feed-forward modules of blocks `first` and up: the direct children of a block that hold the
    neurons' way back to the stream. Raises `BadInput` for blocks without one."""
    tower = model.sites.main
    prefix = tower.prefix
    names = []
    for number in range(first, len(tower.blocks)):
        block = tower.blocks[number]
        site = f"{prefix}layers.{number}.mlp_act"
        inner = model.sites.tap(site).module if site in model.sites else None
        found = next(
            (name for name, child in block.named_children() if inner is not None and inner in set(child.modules())),
            "mlp" if hasattr(block, "mlp") else None,
        )
        if found is None:
            raise BadInput(f"adapter: block {number} of this network has no MLP to stand beside: leave the rung out")
        names.append(f"{tower.path}.{number}.{found}")
    return names


def _inputs(module: nn.Module, width: int) -> int:
    """Of a whole MLP the stream's width; of a bare down projection its neurons."""
    return module.in_features if isinstance(module, nn.Linear) else width
