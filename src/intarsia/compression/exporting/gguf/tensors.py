"""Which tensors of a network go into the file, under which names, and in which order of rows."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.compression.factorization.modules import has_factors
from intarsia.compression.quantization.modules import QuantEmbedding, Quantized, TiedHead, holder
from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.sites import guest_of

# Class -> what GGUF calls the architecture, and whether it wants the rows of q and k in pairs.
ARCHITECTURES = {
    "LlamaForCausalLM": ("llama", True),
    "MistralForCausalLM": ("llama", True),
    "Qwen2ForCausalLM": ("qwen2", False),
}


@dataclass(frozen=True)
class Part:
    """One tensor of the file. heads: how many heads its rows belong to, where their order changes."""

    name: str
    owner: str
    leaf: str
    module: nn.Module
    heads: int | None

    @property
    def value(self) -> Tensor:
        """The tensor as the network computes with it, in the network's order of rows."""
        return getattr(self.module, self.leaf).detach()

    @property
    def width(self) -> int | None:
        """How long the rows of a matrix are; None for a vector."""
        return _shape(self.module, self.leaf)[1] if len(_shape(self.module, self.leaf)) == 2 else None


def parts(model: Model) -> list[Part]:
    """The tensors of a network in its own order; a table that embedding and head share once.

    Raises `BadInput` for a network that is more, less or other than its class makes from its config."""
    import gguf

    network: Any = model.network
    architecture, paired = ARCHITECTURES[type(network).__name__]
    expected = _expected(network)
    _same_modules(network, expected)
    layers = network.config.num_hidden_layers
    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture), layers)
    heads = {"q_proj": network.config.num_attention_heads, "k_proj": network.config.num_key_value_heads}
    found = []
    for key, tensor in expected.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        module = network.get_submodule(owner)
        if owner == "lm_head" and shares_table(network):
            continue
        _same_shape(owner, leaf, module, expected.get_submodule(owner), tensor)
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        found.append(Part(name, owner, leaf, module, heads.get(owner.rpartition(".")[2]) if paired else None))
    return found


def paired_rows(tensor: Any, heads: int) -> Any:
    """Rows [heads * size, ...] with the two halves of each head's rotary dimensions woven into pairs, as GGUF has them.

    Hugging Face rotates dimension i of a head with i + size / 2, llama.cpp's own networks rotate 2i with 2i + 1."""
    rest = tensor.shape[1:]
    return tensor.reshape(heads, 2, len(tensor) // heads // 2, *rest).swapaxes(1, 2).reshape(tensor.shape)


def _expected(network: Any) -> nn.Module:
    """The network its class makes from its config, without data."""
    config = copy.deepcopy(network.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        return type(network)(config)


def _same_modules(network: nn.Module, expected: nn.Module) -> None:
    if guest_of(network) is not None:
        raise BadInput("an adapter stands beside this network and GGUF cannot hold it; merge it into the weights first")
    if has_factors(network):
        raise BadInput("layers of this network are factored, and GGUF knows dense ones only; `dequantize` it first")
    ours, theirs = dict(network.named_modules()), dict(expected.named_modules())
    for name in sorted(ours.keys() ^ theirs.keys()):
        what = f"has {name} ({type(ours[name]).__name__})" if name in ours else f"has no {name}"
        raise BadInput(
            f"the network {what}, other than a {type(network).__name__} of its config; GGUF holds plain and quantized "
            "linear layers: merge or densify the changed layers first"
        )
    for name, module in theirs.items():
        given = ours[name]
        fine = type(given) is type(module) or (
            isinstance(module, nn.Linear | nn.Embedding) and isinstance(given, Quantized | TiedHead)
        )
        if not fine:
            raise BadInput(
                f"{name} is a {type(given).__name__}, GGUF wants a {type(module).__name__}: merge or densify it first"
            )
        if isinstance(given, QuantEmbedding) and given.scale != 1.0:
            raise BadInput(f"{name} multiplies its rows by {given.scale}: no architecture known here does so")


def _same_shape(owner: str, leaf: str, module: Any, expected: Any, tensor: Tensor) -> None:
    if leaf != "weight" and getattr(module, leaf, None) is None:
        raise BadInput(f"{owner} has no {leaf}, which the config asks for; mend the config")
    shape = _shape(module, leaf)
    if shape != tuple(tensor.shape):
        raise BadInput(
            f"{owner}.{leaf} is {list(shape)}, the config says {list(tensor.shape)}: GGUF files of this architecture "
            "have one width for all layers"
        )
    if leaf == "weight" and getattr(module, "bias", None) is not None and getattr(expected, "bias", None) is None:
        raise BadInput(f"{owner} has a bias, which the config says it has not; mend the config")


def _shape(module: Any, leaf: str) -> tuple[int, ...]:
    table = holder(module)
    # The weight of a quantized module is made anew at each access.
    quantized = leaf == "weight" and isinstance(table, Quantized)
    return (table.rows, table.width) if quantized else tuple(getattr(module, leaf).shape)


def shares_table(network: Any) -> bool:
    """Whether the output head uses the input embedding's own table."""
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    if isinstance(head, Quantized | TiedHead) or isinstance(embedding, Quantized):
        return holder(head) is embedding
    return head.weight is embedding.weight
