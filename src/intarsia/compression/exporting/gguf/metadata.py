"""The hyperparameters of a network as llama.cpp reads them from a file."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import BadInput, Note
from intarsia.models import Model

ROPES = ("default", "linear", "llama3")


def check_config(model: Model) -> None:
    """`BadInput` for a network of a known class that does something its GGUF architecture cannot say."""
    config: Any = model.config
    kind = type(model.network).__name__
    if config.hidden_act not in ("silu", "swish"):
        raise BadInput(f"{kind} with hidden_act '{config.hidden_act}': GGUF's architecture has silu only")
    for key in ("attention_bias", "mlp_bias"):
        if getattr(config, key, False):
            raise BadInput(f"{kind} with {key}: readers of GGUF drop these biases, so the file would be another model")
    rope = config.rope_parameters
    if rope["rope_type"] not in ROPES:
        raise BadInput(f"rotary positions of type '{rope['rope_type']}' are not exported; known: {', '.join(ROPES)}")
    if rope["rope_type"] == "llama3" and kind == "Qwen2ForCausalLM":
        raise BadInput(f"{kind} with rotary positions of type 'llama3': its GGUF architecture has no such factors")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise BadInput("rotary positions on a part of each head are not exported for this architecture")
    if kind == "Qwen2ForCausalLM" and head_size(config) * config.num_attention_heads != config.hidden_size:
        raise BadInput("a Qwen2 whose heads do not add up to its width cannot be read back from GGUF")


def head_size(config: Any) -> int:
    """Dimensions of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def add_hyperparameters(out: Any, model: Model) -> None:
    """Write sizes, norms and positions of `model` into the `GGUFWriter` `out`."""
    import gguf

    config: Any = model.config
    out.add_name(model.identity.source.rstrip("/").rpartition("/")[2] or "model")
    out.add_vocab_size(config.vocab_size)
    out.add_context_length(_context(config))
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_key_length(head_size(config))
    out.add_value_length(head_size(config))
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_dimension_count(head_size(config))
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(config.rope_parameters["factor"])


def rope_factors(model: Model) -> Tensor | None:
    """What llama.cpp divides each rotary frequency by, float32 [head size / 2]; None where it divides by one.

    From the frequencies of the network's own class: theta^(-2i / size) / frequency_i."""
    config: Any = model.config
    if config.rope_parameters["rope_type"] != "llama3":
        return None
    size = head_size(config)
    powers = torch.arange(0, size, 2, dtype=torch.float64) / size
    # Made anew: a network that was cast has rounded frequencies.
    rotary: Any = type(model.network.get_submodule("model").rotary_emb)
    used = rotary(config=config).inv_freq.double().cpu()
    return (config.rope_parameters["rope_theta"] ** -powers / used).float()


def _context(config: Any) -> int:
    """The most tokens for which the file's full attention is the network's own."""
    length = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True) or window >= length:
        return length
    warnings.warn(
        f"this network attends to the last {window} tokens only, which its GGUF architecture cannot say: the file's "
        f"context is {window} tokens instead of {length}",
        Note,
        stacklevel=4,
    )
    return window
