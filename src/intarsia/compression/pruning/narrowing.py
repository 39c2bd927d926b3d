"""The steps of `compression.narrow`: scores and least squares block by block, then the narrower network.

While the walk lasts, what goes is only made to write nothing, so that the network keeps its shape; at the end its rows
and columns are cut off, which changes nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.checking import check_plain, check_reads_text
from intarsia.compression.linears import Linear, linears
from intarsia.compression.pruning.parts import Attention, Cuts, Mlp, attention_of, mlp_of, width_key
from intarsia.compression.pruning.rebuilding import filled, prove, said, skeleton, text_config
from intarsia.compression.refitting import refit
from intarsia.compression.statistics import relative_error, told
from intarsia.compression.walking import Walk
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.compression.pruning.technique import NarrowConfig
    from intarsia.data import Text
    from intarsia.models import Model

WHO = "compression.narrow"


def narrow(model: Model, config: NarrowConfig, calibration: Sequence[Text] | None) -> Model:
    """See `intarsia.compression.pruning.technique.narrow`."""
    check_plain(model, WHO)
    plan = _Plan(model, config)
    # The first neurons and heads stand in for those that will be left: only their number matters for the shapes.
    empty = skeleton(model.network, plan.changes, plan.cutting(plan.first()), WHO)
    from intarsia.compression.calibration import calibration_windows

    windows = calibration_windows(model, calibration, config.tokens)
    check_reads_text(model, windows, WHO)
    full = model.copy()
    plan = _Plan(full, config)
    walk = Walk(full, windows)
    kept: list[dict[str, Tensor]] = []
    facts: list[dict[str, Any]] = []
    for index in walk.blocks("narrowing"):
        chosen, fact = {}, {}
        for name, part in plan.parts[index].items():
            last = part.down if isinstance(part, Mlp) else part.out
            stats = walk.look([last])[last.name]
            chosen[name] = part.scores(stats.moment).topk(plan.sizes[name]).indices.sort().values.cpu()
            fact[f"{name}_error"] = _silence(last, part.columns(chosen[name]), stats.moment, config)
        kept.append(chosen)
        facts.append(fact | ({"heads": chosen["heads"].tolist()} if "heads" in chosen else {}))
    told(walk.seen)
    small = filled(full.network, empty, plan.cutting(kept))
    prove(said(full.network), small, WHO)
    changed = model.with_network(small, technique=WHO, config=config.model_dump(mode="json"))
    changed.extras[WHO] = {
        "config": plan.changes,
        "parameters_before": sum(p.numel() for p in model.network.parameters()),
        "parameters": sum(p.numel() for p in small.parameters()),
        "blocks": facts,
    }
    return changed


class _Plan:
    """What is cut from which block.

    - parts: of each block, `heads` before `neurons`: an MLP is looked at after the attention below it was changed.
      sizes: how many of each are left. changes: fields of the config."""

    def __init__(self, model: Model, config: NarrowConfig):
        text = text_config(model, WHO)
        layers: list[list[Linear]] = [[] for _ in model.sites.blocks]
        for layer in linears(model):
            if layer.block is not None:
                layers[layer.block].append(layer)
        self.parts: list[dict[str, Mlp | Attention]] = [{} for _ in layers]
        self.sizes: dict[str, int] = {}
        self.changes: dict[str, Any] = {}
        if config.heads:
            for part, some in zip(self.parts, layers, strict=True):
                part["heads"] = attention_of(some, text, WHO)
            self._plan_heads(text, config)
        if config.neurons:
            for part, some in zip(self.parts, layers, strict=True):
                part["neurons"] = mlp_of(some, WHO)
            self._plan_neurons(text, config)
        if not self.changes:
            raise BadInput(f"{WHO}: nothing to remove; give a share of neurons, or a number of heads")

    def _plan_heads(self, text: Any, config: NarrowConfig) -> None:
        part = self.parts[0]["heads"]
        assert isinstance(part, Attention)
        left = part.groups - config.heads
        if left < 1:
            raise BadInput(f"{WHO}: heads {config.heads}: the network has {part.groups} key-value heads, one must stay")
        self.sizes["heads"] = left
        self.changes["num_attention_heads"] = left * part.shared
        if hasattr(text, "num_key_value_heads"):
            self.changes["num_key_value_heads"] = left
        # Written out, for else it would follow from the number of heads. What does not know it fails as a skeleton.
        self.changes["head_dim"] = part.width

    def _plan_neurons(self, text: Any, config: NarrowConfig) -> None:
        sizes = {part["neurons"].size for part in self.parts}
        if len(sizes) > 1:
            raise BadInput(f"{WHO}: the MLPs have {len(sizes)} widths ({min(sizes)} to {max(sizes)}); one is wanted")
        (size,) = sizes
        left = max(1, round((1 - config.neurons) * size / config.multiple)) * config.multiple
        if left >= size:
            raise BadInput(
                f"{WHO}: {1 - config.neurons:.0%} of {size} neurons, as a multiple of {config.multiple}, is {left}: "
                "nothing would go; give a smaller multiple or a larger share"
            )
        self.sizes["neurons"] = left
        self.changes[width_key(text, WHO)] = left

    def first(self) -> list[dict[str, Tensor]]:
        return [{name: torch.arange(size) for name, size in self.sizes.items()} for _ in self.parts]

    def cutting(self, kept: Sequence[dict[str, Tensor]]) -> Any:
        """What becomes of each tensor when in each block these are left (`rebuilding.Move`)."""
        cuts: Cuts = {}
        for parts, chosen in zip(self.parts, kept, strict=True):
            for name, part in parts.items():
                cuts |= part.cuts(chosen[name])

        def move(name: str, tensor: Tensor) -> tuple[str, Tensor]:
            if name not in cuts:
                return name, tensor
            dimension, numbers = cuts[name]
            return name, tensor.index_select(dimension, numbers.to(tensor.device))

        return move


def _silence(layer: Linear, kept: Tensor, moment: Tensor, config: NarrowConfig) -> float:
    """Give every input of a layer that is not `kept` weight zero, the others what makes good for it; the error."""
    before = layer.weight.float().clone()
    kept = kept.to(before.device)
    new = torch.zeros_like(before)
    new[:, kept] = refit(before, moment, kept, config.ridge) if config.refit else before[:, kept]
    layer.set(new)
    return relative_error(layer.weight.float() - before, before, moment)
