"""From settings to plans, one a tower, and from plans to a merged model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from intarsia.data import ImageText
from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.sites.recomposing import Rule, installed, recompose
from intarsia.tokens.decoding import PictureRows
from intarsia.tokens.macs import TowerShape, tower_macs
from intarsia.tokens.merge import MergeConfig
from intarsia.tokens.merging import Merging
from intarsia.tokens.plan import Plan
from intarsia.tokens.schedules import removal
from intarsia.tokens.towers import (
    Towers,
    feature_block,
    patch_of,
    shape_of,
    text_facts,
    towers_of,
)

NAME = "tokens.merge"


def merged(model: Model, config: MergeConfig, images: list[ImageText] | None = None) -> Model:
    """A copy of `model` under the rules that `config` asks for."""
    check(config)
    if installed(model.network):
        raise BadInput("this model's tokens are merged already: start from the dense model")
    towers = towers_of(model)
    plans = plans_for(model, config, towers, images)
    copied = model.copy()
    put(copied, plans)
    settings = {k: v for k, v in config.model_dump(mode="json").items() if v != MergeConfig.model_fields[k].default}
    done = copied.with_network(copied.network, technique=NAME, **{"keep": config.keep, **settings})
    return remember(done, plans)


def remember(model: Model, plans: Mapping[str, Plan]) -> Model:
    """`model` with its plans among what is saved beside the weights."""
    return replace(model, extras={**model.extras, NAME: {name: plan.to_json() for name, plan in plans.items()}})


def put(model: Model, plans: Mapping[str, Plan]) -> None:
    """Put plans on the towers of a model, in place."""
    rules: dict[str, Rule] = {}
    for name, plan in plans.items():
        rule = PictureRows(plan) if plan.kind == "decoder" else Merging(plan)
        rules[name] = rule.to(device=model.device, dtype=model.dtype)
    if rules:
        recompose(model.network, rules)


def check(config: MergeConfig) -> None:
    """Refuse settings that cannot be meant, before any work."""
    for name in ("keep", "text_keep", "decoder_keep"):
        value = getattr(config, name)
        if not 0 < value <= 1:
            raise BadInput(f"{name} is {value:g}: give the share to keep, above 0 and at most 1 (0.5: about half)")
    if config.matcher == "prune" and config.importance == "none":
        raise BadInput("pruning drops the least important tokens: give an importance other than none")
    if any(r < 0 for r in config.removed):
        raise BadInput(f"removed holds {min(config.removed)}: a block cannot remove fewer than 0 rows")


def plans_for(
    model: Model, config: MergeConfig, towers: Towers, images: list[ImageText] | None = None
) -> dict[str, Plan]:
    """A plan for every tower that changes; none at all when everything is kept."""
    vision = towers.vision
    last = feature_block(model.network, vision)
    shape = shape_of(model.sites, vision, last=last)
    patch = patch_of(vision)
    common: dict[str, Any] = {
        "matcher": config.matcher,
        "strength": config.strength,
        "temperature": config.temperature,
        "ensemble": config.ensemble,
        "norm": config.norm,
        "proportional": config.proportional,
        "seed": config.seed,
    }
    width = vision.width
    pad = len(vision.blocks) - shape.layers
    removed = _vision_removal(model, config, towers, shape, images)
    plans: dict[str, Plan] = {}
    auto = "cross" if config.cross else "attention"
    importance = auto if config.importance in ("auto", "question") else config.importance
    if any(removed) or config.cross:
        plans[vision.name] = Plan(
            kind="vision",
            removed=(*removed, *[0] * pad),
            importance=importance,
            patch=patch,
            # Cross-attention reads the fewer rows as they are, and so does anyone where rows are only dropped; others
            # are given all of them again, a language model because its prompt has a place for each.
            restore=towers.decoder is not None or not (towers.crossing or config.matcher == "prune"),
            last=last,
            cross=width if config.cross else 0,
            **common,
        )
    if towers.text is not None:
        plans.update(_text_plan(model, config, towers, common, importance, bool(plans)))
    if towers.decoder is not None:
        plans.update(_decoder_plan(model, config, towers, shape, common, removed))
    return plans


def _vision_removal(
    model: Model, config: MergeConfig, towers: Towers, shape: TowerShape, images: list[ImageText] | None
) -> tuple[int, ...]:
    if config.removed:
        if len(config.removed) != shape.layers:
            raise BadInput(f"removed lists {len(config.removed)} blocks, the vision tower has {shape.layers} in use")
        return config.removed
    if config.keep == 1:
        return (0,) * shape.layers
    if shape.tokens == 0:
        reason = next(iter(model.sites.wiring[towers.vision.name][0].missing.values()), "its wiring is unknown")
        hint = "; its language model's can: keep 1 and decoder_keep below 1" if towers.decoder is not None else ""
        raise BadInput(f"the tokens of this vision tower cannot be merged: {reason}{hint}")
    blocked = 2 if config.cross else 1
    # The guide is a row too: what it takes comes out of the same share of the dense tower's work.
    working = replace(shape, tokens=shape.tokens + 1) if config.cross else shape
    scale = tower_macs(shape) / tower_macs(working)

    schedule = schedule_for(config.schedule, towers)
    if schedule == "sensitivity":
        if not images:
            raise BadInput("the schedule 'sensitivity' is measured on pictures: give some (--images DIR)")
        from intarsia.tokens.sensitivity import measured_removal

        return measured_removal(model, config.model_copy(update={"keep": config.keep * scale}), towers, working, images)

    def given(share: float) -> tuple[int, ...]:
        return removal(working, share * scale, schedule, blocked=blocked, every=config.every)

    if towers.decoder is None:
        return given(config.keep)
    # The rows that are left are also all that the language model works on: both are counted together.
    reader = shape_of(model.sites, towers.decoder)
    given_to, follows = picture_rows(model, shape)
    if not follows:
        return given(config.keep)
    whole = tower_macs(shape) + reader_macs(reader, given_to, given_to)

    def share(candidate: tuple[int, ...]) -> float:
        return (tower_macs(working, candidate) + reader_macs(reader, given_to, given_to - sum(candidate))) / whole

    low, high = 0.0, 1.0
    best = given(1.0)
    for _ in range(20):
        middle = (low + high) / 2
        try:
            candidate = given(middle)
        except BadInput:
            low = middle
            continue
        if abs(share(candidate) - config.keep) < abs(share(best) - config.keep):
            best = candidate
        low, high = (middle, high) if share(candidate) < config.keep else (low, middle)
    return best


def schedule_for(name: str, towers: Towers) -> str:
    """What `auto` means for a network. At equal work a decreasing schedule leaves more rows at the tower's end, which
    counts where others read them; a tower that is pooled fares better when it loses rows late."""
    if name != "auto":
        return name
    return "decreasing" if towers.crossing or towers.decoder is not None else "constant"


def picture_rows(model: Model, shape: TowerShape) -> tuple[int, bool]:
    """How many rows a language model is given for a picture, and whether they are the tower's own, one for one.

    LLaVA's usual strategy leaves the class row out; SmolVLM and Idefics fold squares of patches into one row, BLIP-2
    asks with a fixed number of queries, Qwen-VL folds and has pictures of any size."""
    config = model.config
    if queries := getattr(config, "num_query_tokens", None):
        return int(queries), False
    if (scale := getattr(config, "scale_factor", 1) or 1) > 1:
        return max(shape.tokens // int(scale) ** 2, 1), False
    if shape.tokens == 0:
        return 256, False  # (only the share counts where the size is free)
    return shape.tokens - (getattr(config, "vision_feature_select_strategy", None) == "default"), True


def deepstack(model: Model) -> int:
    """Into how many first blocks of its language model a network adds picture features (Qwen3-VL)."""
    vision = getattr(model.config, "vision_config", None)
    return len(getattr(vision, "deepstack_visual_indexes", None) or ())


def reader_macs(shape: TowerShape, before: int, after: int, layer: int = 0) -> float:
    """Multiply-accumulates of a language model on the rows of one picture, `before` of them up to the attention of
    block `layer` and `after` from there on."""
    gone = tuple(before - after if i == layer else 0 for i in range(shape.layers))
    return tower_macs(replace(shape, tokens=before), gone)


def _text_plan(
    model: Model, config: MergeConfig, towers: Towers, common: dict[str, Any], importance: str, wanted: bool
) -> dict[str, Plan]:
    text = towers.text
    assert text is not None
    facts = text_facts(text)
    trims = facts["pooled"] == "end"
    shape = shape_of(model.sites, text, tokens=int(text.config.max_position_embeddings))
    removed = (0,) * shape.layers
    if config.text_keep < 1:
        removed = removal(shape, config.text_keep, "constant", blocked=3, every=config.every)
    if not (any(removed) or (wanted and trims) or config.cross):
        return {}
    return {
        text.name: Plan(
            kind="text",
            removed=removed,
            importance=importance,
            trim=trims,
            cross=text.width if config.cross else 0,
            facts=facts,
            **common,
        )
    }


def _decoder_plan(
    model: Model,
    config: MergeConfig,
    towers: Towers,
    vision: TowerShape,
    common: dict[str, Any],
    merged_rows: tuple[int, ...],
) -> dict[str, Plan]:
    decoder = towers.decoder
    assert decoder is not None
    shape = shape_of(model.sites, decoder)
    shares = [0.0] * shape.layers
    follow = any(merged_rows)
    given_to, follows = picture_rows(model, vision)
    follow = follow and follows
    left = given_to - sum(merged_rows) if follow else given_to
    if config.decoder_keep < 1:
        if not 0 <= config.decoder_layer < shape.layers:
            raise BadInput(f"decoder_layer is {config.decoder_layer}: the language model has {shape.layers} blocks")
        if follow and config.decoder_layer == 0:
            raise BadInput("block 0 of the language model takes over the merged rows: give decoder_layer 1 or more")
        if config.decoder_layer < (deep := deepstack(model)):
            raise BadInput(
                f"this network adds picture features up to block {deep - 1}: give a decoder_layer from {deep}"
            )
        whole = reader_macs(shape, left, left)
        best = min(
            range(1, left + 1),
            key=lambda n: abs(reader_macs(shape, left, n, config.decoder_layer) / whole - config.decoder_keep),
        )
        shares[config.decoder_layer] = 1 - best / left
    if not (follow or any(shares)):
        return {}
    importance = "question" if config.importance in ("auto", "cross") else config.importance
    return {
        decoder.name: Plan(
            kind="decoder",
            removed=(0,) * shape.layers,
            shares=tuple(shares),
            importance=importance,
            follow=follow,
            **common,
        )
    }
