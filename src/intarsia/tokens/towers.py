"""The towers of a network as token merging sees them: which they are, their shapes, what must stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.sites import SiteMap
from intarsia.sites.towers import Tower, image_token
from intarsia.tokens.macs import TowerShape

_TRIMMED = ("clip", "clip_text_model")
"""Causal text towers that are pooled at the end token: what lies behind it changes nothing."""
_LAST_PLACE = ("siglip", "siglip_text_model", "siglip2", "siglip2_text_model")
"""Text towers that are pooled at the last place, which may be padding that carries meaning."""


@dataclass(frozen=True)
class Towers:
    """The vision tower, and what reads it: a pooled text tower, a language model, or a cross-attending text tower."""

    vision: Tower
    text: Tower | None = None
    decoder: Tower | None = None
    crossing: bool = False


def towers_of(model: Model) -> Towers:
    """The towers of a model. Raises `BadInput` for one that has no vision tower."""
    sites = model.sites
    vision = sites.towers.get("vision")
    if vision is None and len(sites.towers) == 1 and takes_pictures(next(iter(sites.towers.values())).root):
        vision = next(iter(sites.towers.values()))
    if vision is None:
        raise BadInput(
            f"{type(model.network).__name__} has no vision tower whose tokens could be merged "
            f"(its towers: {', '.join(n or 'one, of text' for n in sites.towers)}); give a vision-language model"
        )
    text = sites.towers.get("text")
    if text is None:
        return Towers(vision, crossing=_crosses(model.network))
    if image_token(model.config) is not None:
        return Towers(vision, decoder=text)
    kind = getattr(text.config, "model_type", "")
    return Towers(vision, text=text if kind in (*_TRIMMED, *_LAST_PLACE) else None, crossing=_crosses(model.network))


def takes_pictures(root: nn.Module) -> bool:
    """Whether a model's main input is pixels."""
    return getattr(root, "main_input_name", "") == "pixel_values"


def _crosses(network: nn.Module) -> bool:
    from intarsia.sites.recomposing.crossing import crossing_attentions

    return bool(crossing_attentions(network))


def shape_of(sites: SiteMap, tower: Tower, tokens: int | None = None, last: int | None = None) -> TowerShape:
    """What the tower computes for each token, from its own weights (whatever its MLP and its key-value heads are).

    - tokens: how many it works on; None: those of a picture of the size it was made for.
    - last: the last block that counts."""
    wiring = sites.wiring[tower.name]
    block, width = tower.blocks[0], tower.width
    inside = {id(m) for part in wiring[0].attention for m in part.modules()}
    maps = [(id(m) in inside, _linear_size(m)) for m in block.modules()]
    attention = sum(size for within, size in maps if within)
    rest = sum(size for within, size in maps if not within)
    layers = len(tower.blocks) if last is None else last % len(tower.blocks) + 1
    return TowerShape(
        tokens=tokens or wiring[0].tokens,
        layers=layers,
        width=width,
        attention_weights=attention,
        mlp_weights=rest,
    )


def _linear_size(module: nn.Module) -> int:
    """Multiply-accumulates for one token of a linear map, quantized or not; 0 for anything else."""
    if hasattr(module, "base_layer"):  # a LoRA layer: its base is counted by itself
        return 0
    if isinstance(given := getattr(module, "in_features", None), int):
        return given * int(module.out_features)  # type: ignore[arg-type]
    return module.weight.numel() if type(module).__name__ == "Conv1D" else 0  # type: ignore[union-attr]


def patch_of(tower: Tower) -> tuple[int, int] | None:
    """Height and width of a patch in pixels, or None when the config does not say."""
    patch: Any = getattr(tower.config, "patch_size", None)
    if isinstance(patch, int):
        return patch, patch
    return tuple(patch) if isinstance(patch, list | tuple) and len(patch) == 2 else None


def text_facts(tower: Tower) -> dict[str, Any]:
    """How a text tower is pooled and whether it is causal."""
    kind = getattr(tower.config, "model_type", "")
    if kind in _TRIMMED:
        return {"pooled": "end", "eos": int(tower.config.eos_token_id), "causal": True}
    return {"pooled": "last", "causal": False}


def feature_block(network: nn.Module, tower: Tower) -> int | None:
    """The vision block whose output a language model is given, or None for the last (LLaVA reads the one before)."""
    layer = getattr(network.config, "vision_feature_layer", None)
    if isinstance(layer, list | tuple):
        layers = [n if n < 0 else n - len(tower.blocks) - 1 for n in layer]
        if len(set(layers)) > 1:
            raise BadInput(
                f"this network reads several vision blocks ({', '.join(map(str, layer))}) as one: rows that are merged "
                "differently in each cannot be put together"
            )
        layer = layers[0]
    if layer is None:
        return None
    # Entry 0 of the hidden states is the embedding; -1 is the last block.
    index = layer if layer < 0 else layer - len(tower.blocks) - 1
    return None if index == -1 else len(tower.blocks) + index
