"""A part of the network's own parameters: biases and norms, or the last blocks.

Source: Ben Zaken et al. 2022, "BitFit", §3 (biases); Zhao et al. 2024, "Tuning LayerNorm in Attention" (norms)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from intarsia.adaptation.routes.rungs.tuned import Part, Tuned
from intarsia.errors import BadInput
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.routes.setting import Setting
    from intarsia.models import Model

TOP = 0.1  # share of the blocks that are trained whole


class Partial(Tuned):
    """- whole: the last blocks, with all their parameters; else only biases and norms, from `layers_from` on."""

    def __init__(self, name: str, what: str, whole: bool, factor: float):
        self.name, self.what, self.whole, self.factor = name, what, whole, factor
        self.setting_names = ("layers_from",)

    def possible(self, setting: Setting) -> None:
        chosen(setting.model, setting.config.layers_from, self.whole)

    def put(self, model: Model, setting: Setting) -> Part:
        model.network.requires_grad_(False)
        named = chosen(model, setting.config.layers_from, self.whole)
        for parameter in named.values():
            parameter.requires_grad_(True)
        return Part(named, model.network, lambda: model.network.requires_grad_(True))


def chosen(model: Model, layers_from: float, whole: bool) -> dict[str, torch.nn.Parameter]:
    """The parameters to train, by name. The norm behind the last block is among them."""
    tower = model.sites.main
    depth, first = len(tower.blocks), first_block(model.network, layers_from)
    if whole:
        first = max(first, depth - max(1, round(TOP * depth)))
    found: dict[str, torch.nn.Parameter] = {}
    for owner, module in model.network.named_modules():
        inside = re.match(rf"{re.escape(tower.path)}\.(\d+)(\.|$)", owner)
        is_norm = "norm" in type(module).__name__.lower()
        if inside is None and not (is_norm and owner.startswith(tower.path.rpartition(".")[0])):
            continue
        if inside is not None and int(inside[1]) < first:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or whole or name == "bias":
                found[f"{owner}.{name}"] = parameter
    if not found:
        raise BadInput("norms: this network has neither biases nor norms with weights: leave the rung out")
    return found


RUNGS = (
    Partial("norms", "biases and norms of the upper blocks", False, 5.0),
    Partial("top-blocks", "the last tenth of the blocks, whole", True, 0.2),
)
