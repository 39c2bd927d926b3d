"""Low-rank adapters by PEFT: put in, switched to training, merged back into a plain network.

Source: Hu et al. 2021, "LoRA", §4.1: W + (alpha / rank) B A, with A random and B zero. Variants: Kalajdzievski 2023
(rsLoRA), Liu et al. 2024 (DoRA), Meng et al. 2024 (PiSSA), Liu et al. 2022 (IA3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from intarsia.catalog import Config
from intarsia.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


Variant = Literal["lora", "rslora", "dora", "pissa", "ia3"]


class LoraConfig(Config):
    """Settings that every LoRA technique shares: the adapter and the optimiser."""

    variant: Variant = Field(
        "lora",
        description="lora; rslora: scaled by alpha / sqrt(rank), for high ranks; dora: a weight's size is trained apart"
        " from its direction; pissa: begins with the strongest directions of the weight; ia3: only factors on keys, "
        "values and neurons",
    )
    rank: int = Field(16, ge=1, description="rank of the update of each matrix")
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: tuple[str, ...] = Field(
        ("all",), description="names of the linear layers to adapt (q_proj, down_proj), or all"
    )
    layers_from: float = Field(
        0, ge=0, description="adapt only blocks from this one up; below 1: a share of the depth (0.5: the upper half)"
    )
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's peak learning rate")
    schedule: str = Field("cosine", pattern="^(linear|cosine|constant)$", description="linear, cosine or constant")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    final_rate: float = Field(0.05, ge=0, le=1, description="the last learning rate, as a share of the peak")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's decay rates of its two moments")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    batch_size: int = Field(8, ge=1, description="records in a step")
    epochs: float = Field(1, gt=0, description="times through the training records")
    max_steps: int | None = Field(None, ge=1, description="stop after so many steps")
    minutes: float | None = Field(
        None,
        gt=0,
        description="train no longer than so many minutes; the learning rate then falls by the clock, and equal seeds "
        "give equal results only on equally fast machines",
    )


def first_block(network: PreTrainedModel, layers_from: float) -> int:
    """The first block to adapt, from a number or a share of the depth. Raises `BadInput` beyond the last block."""
    depth = network.config.get_text_config().num_hidden_layers
    first = round(layers_from * depth) if layers_from < 1 else int(layers_from)
    if first != layers_from and layers_from >= 1:
        raise BadInput(f"layers_from: a whole number, or a share below 1 (given: {layers_from})")
    if first >= depth:
        raise BadInput(f"layers_from is {layers_from}, but the network has {depth} blocks (0 to {depth - 1})")
    return first


def linear_names(network: PreTrainedModel, targets: Sequence[str], first: int) -> list[str]:
    """Full names of the linear modules inside blocks `first` and up that `targets` select (`all`: every one).

    Raises `BadInput` that lists what there is when a target names nothing."""
    import torch
    from transformers.pytorch_utils import Conv1D

    inside: dict[str, int] = {}
    for name, module in network.named_modules():
        number = re.search(r"\.(\d+)\.", name)
        # GPT-2 writes its linear layers as `Conv1D`.
        if number and isinstance(module, torch.nn.Linear | Conv1D):
            inside[name] = int(number.group(1))
    kinds = sorted({name.rpartition(".")[2] for name in inside})
    chosen = set(kinds) if list(targets) == ["all"] else set(targets)
    if unknown := sorted(chosen - set(kinds)):
        raise BadInput(f"targets: no linear layer is called '{unknown[0]}'; this network has {', '.join(kinds)}")
    return [name for name, block in inside.items() if block >= first and name.rpartition(".")[2] in chosen]


def attach(network: PreTrainedModel, config: LoraConfig) -> tuple[Any, list[torch.nn.Parameter]]:
    """The network inside PEFT's wrapper, and the parameters to train.

    The adapters' first matrices are drawn from torch's global generator: seed it before. With `pissa` the network's own
    weights give up what the adapters begin with. All else is frozen, and the network stays in evaluation mode (its own
    dropout is off, so that states below the adapters are constants); only the adapters' dropout is on. Raises
    `MissingExtra` without PEFT."""
    try:
        import peft
    except ImportError:
        raise MissingExtra("adaptation by LoRA", "adapt") from None
    import torch

    names = linear_names(network, config.targets, first_block(network, config.layers_from))
    # `Conv1D` keeps its weights transposed.
    transposed = not isinstance(network.get_submodule(names[0]), torch.nn.Linear)
    settings: Any
    if config.variant == "ia3":
        settings = peft.IA3Config(fan_in_fan_out=transposed, **scaled_names(network, config.targets, names))
    else:
        settings = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=names,
            bias="none",
            fan_in_fan_out=transposed,
            use_rslora=config.variant == "rslora",
            use_dora=config.variant == "dora",
            init_lora_weights="pissa_niter_16" if config.variant == "pissa" else True,
        )
    adapted = peft.get_peft_model(network, settings)
    adapted.eval()
    for name, module in adapted.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" in name:
            module.train()
    return adapted, [p for p in adapted.parameters() if p.requires_grad]


def scaled_names(network: PreTrainedModel, targets: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Which of these layers IA3 scales: at their output, or (`feedforward_modules`) at their input, the neurons.

    With `all` the layers are those that PEFT knows for the architecture, the paper's: keys, values and neurons. Named
    targets are scaled at their output unless PEFT knows them for the input. Raises `BadInput` for an architecture that
    PEFT does not know."""
    from peft.utils import constants

    kind = network.config.get_text_config().model_type
    known = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
    inner = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, [])
    if list(targets) == ["all"] and known is None:
        raise BadInput(
            f"variant ia3: which layers of '{kind}' networks make keys, values and neurons is not known: name targets"
        )

    def ends(name: str, words: Sequence[str]) -> bool:
        return any(name == word or name.endswith("." + word) for word in words)

    chosen = [name for name in names if list(targets) != ["all"] or ends(name, known or [])]
    if not chosen:
        raise BadInput(f"variant ia3: this '{kind}' network has no {', '.join(known or [])}: name targets")
    return {"target_modules": chosen, "feedforward_modules": [name for name in chosen if ends(name, inner)]}


def merge(adapted: Any) -> PreTrainedModel:
    """The plain network with the updates added to its weights."""
    network = adapted.merge_and_unload().eval()
    network.requires_grad_(True)
    # PEFT leaves its marks on the network; a merged one is a plain one.
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in network.__dict__:
            delattr(network, mark)
    return network
