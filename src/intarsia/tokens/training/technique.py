"""The computation behind `tokens.train`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from intarsia.errors import BadInput, MissingExtra
from intarsia.measure import provenance
from intarsia.models import Model
from intarsia.sites.recomposing import installed
from intarsia.tokens.alignment import has_guides
from intarsia.tokens.towers import towers_of
from intarsia.tokens.train import TokenTraining, TrainConfig
from intarsia.tokens.training.fitting import Fitted, fit
from intarsia.tokens.training.lessons import Lessons

WHO = "tokens.train"


def trained(model: Model, config: TrainConfig, records: Sequence[Any], seed: int) -> Model:
    """See `tokens.train`."""
    towers_of(model)
    if config.trains == "offsets" and not has_guides(model.network):
        raise BadInput(
            f"{WHO}: this model has no cross tokens to train: merge it with cross (merge(model, cross=True))"
        )
    lessons = Lessons(model, records, config.batch_size, config.max_tokens, seed)
    if config.epochs is not None:
        steps = max(1, math.ceil(config.epochs * lessons.rounds))
        config = config.model_copy(update={"steps": steps})
    copied = model.copy()
    adapted = attach(copied, config.rank, seed) if config.trains == "lora" else None
    done = fit(copied.network, lessons, lessons.task, config, seed=seed, facts=lessons.facts)
    if adapted is not None:
        merged_in(adapted)
    default = TrainConfig.model_fields
    settings = {
        k: v for k, v in config.model_dump(mode="json").items() if v != default[k].default and k != "checkpoint"
    }
    changed = copied.with_network(copied.network, technique=WHO, **{"steps": config.steps, "seed": seed, **settings})
    changed.finding = _finding(model, config, lessons, done, seed)
    return changed


def _finding(model: Model, config: TrainConfig, lessons: Lessons, done: Fitted, seed: int) -> TokenTraining:
    tail = max(1, len(done.task) // 10)
    first, last = (sum(part) / len(part) for part in (done.task[:tail], done.task[-tail:]))
    how = "with merged tokens" if installed(model.network) else "dense, as a control"
    summary = (
        f"{config.steps} steps of up to {config.batch_size} records, {how}: the task's loss went from {first:.3f} to "
        f"{last:.3f} (means over the first and the last {tail})"
    )
    if done.aligned:
        summary += f"; the cross tokens' alignment from {done.aligned[0]:.3g} to {done.aligned[-1]:.3g} nats"
    return TokenTraining(
        title=f"{model.identity.source}, trained on",
        technique=WHO,
        summary=f"{summary}. These are losses on the training records: how good the model is, tokens.compare tells on "
        "others, beside a dense model that was trained on as long.",
        task=done.task,
        aligned=done.aligned,
        distilled=done.distilled,
        pictures=len(lessons.records),
        unread=lessons.unread,
        provenance=provenance(seed=seed, settings=config.model_dump(mode="json", exclude={"checkpoint"})),
    )


def attach(model: Model, rank: int, seed: int) -> Any:
    """Low-rank adapters on the linear maps of the language model's blocks (without one: of both towers'), in place;
    beside them only the projector and the offsets want gradients. Returns PEFT's wrapper of the network."""
    try:
        import peft
    except ImportError:
        raise MissingExtra("training by LoRA", "adapt") from None
    network: Any = model.network
    towers = towers_of(model)
    chosen = [towers.decoder] if towers.decoder is not None else list(model.sites.towers.values())
    inside = {id(m) for tower in chosen for block in tower.blocks for m in block.modules()}
    names = [n for n, m in network.named_modules() if id(m) in inside and isinstance(m, nn.Linear)]
    # What the site map and the rules stand on are the blocks; PEFT replaces the linear maps inside them.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(network, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names))
    for name, parameter in network.named_parameters():
        if "multi_modal_projector" in name or name.endswith("offsets"):
            parameter.requires_grad_(True)
    return adapted


def merged_in(adapted: Any) -> None:
    """Add the adapters to the weights and leave the plain network behind."""
    network = adapted.merge_and_unload()
    network.requires_grad_(True)
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in network.__dict__:
            delattr(network, mark)
