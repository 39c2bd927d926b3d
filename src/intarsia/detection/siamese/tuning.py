"""Which part of an encoder learns, and how it becomes a plain network again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.training import lora

if TYPE_CHECKING:
    import torch

    from intarsia.detection.siamese.settings import SiameseConfig
    from intarsia.models import Model

TOP = 2  # blocks that `last2` tunes


@dataclass(frozen=True)
class Tuned:
    """- parameters: what learns. first: no block below this one, nor the embeddings, changes (0: nothing is frozen that
    could be run beforehand). finish: gives the plain network, once."""

    parameters: list[torch.nn.Parameter]
    first: int
    finish: Callable[[], Any]


def bare(model: Model, config: SiameseConfig) -> Model:
    """The encoder of a model: its network without the head for words, a copy where it is going to be tuned.

    It keeps the model's identity and none of its extras and parts, which belonged to the weights as they were. Raises
    `BadInput` for a model without a tokenizer, an encoder-decoder, a network that wants pictures, and the state of the
    first token of a network that reads from left to right."""
    import copy

    from intarsia.measure.likelihood import accepts
    from intarsia.models import Model as Whole

    network, kind = model.network, type(model.network).__name__
    if model.tokenizer is None:
        raise BadInput("a detector reads text: this model has no tokenizer (wrap(network, tokenizer))")
    if getattr(network.config, "is_encoder_decoder", False) or accepts(network)("pixel_values"):
        raise BadInput(f"a {kind} has more than one tower: an encoder of texts is wanted, such as minilm or bert-base")
    if config.pooling == "cls" and network.can_generate():
        raise BadInput(f"pooling cls: the first token of a {kind} sees none of the others; take pooling mean")
    network = network.base_model
    if config.tune != "none":
        network = copy.deepcopy(network)
    return Whole(network, model.tokenizer, identity=model.identity)


def open_to_training(model: Model, config: SiameseConfig) -> Tuned:
    """Freeze the network of a model that is ours to change, but for what `config.tune` says.

    It stays in evaluation mode, as in all of the house's training: equal texts have equal vectors. LoRA's random
    matrices are drawn from torch's global generator: seed it before."""
    network = model.network.eval()
    if config.tune == "lora":
        adapted, parameters = lora.attach(network, config)
        return Tuned(parameters, lora.first_block(network, config.layers_from), lambda: lora.merge(adapted))
    network.requires_grad_(False)
    blocks, first = model.sites.blocks, 0
    chosen: list[torch.nn.Parameter] = []
    if config.tune == "last2":
        first = max(0, len(blocks) - TOP)
        chosen = [p for block in blocks[first:] for p in block.parameters()]
    elif config.tune == "all":
        # A pooler's vector is not read here.
        chosen = [p for name, p in network.named_parameters() if "pooler" not in name.split(".")]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return Tuned(chosen, first, lambda: network.requires_grad_(True))
